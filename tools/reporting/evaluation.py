"""The content of a report: a folder of predictions with its scores, images and label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.datasets import LAYOUTS
from data_iter.errors import DataError
from data_iter.image_files import read_image, read_label
from data_iter.labels import to_train_ids
from data_iter.listing import IMAGE_SUFFIXES
from tools.scoring import cityscapes, classes, kitti
from tools.shared.pairs import Names, Pair, files, find_pairs, frame_name, index
from tools.shared.parallel import in_threads

# The paper's results in %, and their tables.
PAPER = {
    ("cityscapes", "mean IoU"): (76.4, "Table 3, ResNet-101 DUC+HDC, validation set"),
    ("cityscapes", "mean IoU with CRF"): (76.7, "section 4.1.2, ResNet-DUC, validation set"),
    ("voc", "mean IoU"): (83.1, "Table 6, ResNet-152 DUC, test set"),
    ("kitti", "um_road MaxF"): (95.64, "Table 5, test set"),
    ("kitti", "um_road AP"): (93.50, "Table 5, test set"),
    ("kitti", "umm_road MaxF"): (97.62, "Table 5, test set"),
    ("kitti", "umm_road AP"): (95.53, "Table 5, test set"),
    ("kitti", "uu_road MaxF"): (95.17, "Table 5, test set"),
    ("kitti", "uu_road AP"): (92.73, "Table 5, test set"),
    ("kitti", "URBAN MaxF"): (96.41, "Table 5, test set"),
    ("kitti", "URBAN AP"): (93.88, "Table 5, test set"),
}


class Layers(NamedTuple):
    """A frame's picture (H, W, 3) uint8 RGB, and label maps of train ids (H, W) uint8."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    refined: np.ndarray | None  # by the CRF


Labels = Callable[[Pair], tuple[np.ndarray, np.ndarray]]  # truth and prediction, train ids


class Row(NamedTuple):
    """A row of the score table, in %; a missing number is None."""

    measure: str
    ours: float | None
    paper: float | None
    source: str


class Evaluation:
    """Predictions of a data set whose label files hold classes.

    Parameters
    ----------
    dataset : DatasetSpec
        The class table.
    images, ground_truth, predictions : Path
        Folders; images may lie deeper.
    refined : Path, optional
        Folder with the CRF's results.
    names : sequence of str, or mapping of str to Path, optional
        These frames only.
    values : str, optional
        ``label_id`` or ``train_id``: what predictions hold, if their values do not decide it.

    Attributes
    ----------
    scores, refined : dict
        As :func:`tools.scoring.classes.score` returns them; ``refined`` is None without a CRF.

    Raises ``DataError`` if a file is missing or wrong.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        images: Path,
        ground_truth: Path,
        predictions: Path,
        refined: Path | None = None,
        names: Names = None,
        values: str | None = None,
    ):
        self.dataset, self._names, self._values = dataset, names, values
        self.pairs = self._find(ground_truth, predictions)
        self.refined_pairs = self._find_refined(ground_truth, refined) if refined else []
        self.scores = self._score()
        self.refined = self._score_labels(self.refined_pairs) if refined else None
        self._images = self._find_images(images)

    def layers(self, number: int) -> Layers:
        """Read the pictures of the frame ``scores["frames"][number]``."""
        pair = self.pairs[number]
        image = read_image(self._images[pair.name])
        truth, prediction = self._labels(pair)
        if image.shape[:2] != truth.shape:
            raise DataError(
                f"{self._images[pair.name]}: the image is {image.shape[1]}x{image.shape[0]}, "
                f"its label file {truth.shape[1]}x{truth.shape[0]} (width x height)"
            )
        refined = None
        if self.refined:
            refined = self._train_ids(self.refined_pairs[number], self.refined["values"])[1]
        return Layers(image, truth, prediction, refined)

    def rows(self) -> list[Row]:
        """List the scores with the paper's beside them."""
        measures = [("mean IoU", self.scores["mean_iou"])]
        for measure, key in (
            ("mean iIoU", "mean_iiou"),
            ("mean category IoU", "mean_category_iou"),
            ("mean category iIoU", "mean_category_iiou"),
            ("frequency-weighted IoU", "frequency_weighted_iou"),
            ("mean boundary IoU", "mean_boundary_iou"),
            ("mean Dice", "mean_dice"),
            ("mean precision", "mean_precision"),
            ("mean recall", "mean_recall"),
        ):
            if key in self.scores:
                measures.append((measure, self.scores[key]))
        measures.append(("pixel accuracy", self.scores["pixel_accuracy"]))
        if self.refined:
            measures.append(("mean IoU with CRF", self.refined["mean_iou"]))
            measures.append(("pixel accuracy with CRF", self.refined["pixel_accuracy"]))
        return [self._row(measure, value) for measure, value in measures]

    def _row(self, measure: str, value: float | None) -> Row:
        paper, source = PAPER.get((self.dataset.name, measure), (None, ""))
        return Row(measure, None if value is None else 100 * value, paper, source)

    def _find(self, ground_truth: Path, predictions: Path) -> list[Pair]:
        return find_pairs(self.dataset.layout, ground_truth, predictions, self._names)

    def _find_refined(self, ground_truth: Path, refined: Path) -> list[Pair]:
        return self._find(ground_truth, refined)

    def _score(self) -> dict[str, Any]:
        return self._score_labels(self.pairs)

    def _score_labels(self, pairs: list[Pair]) -> dict[str, Any]:
        is_city = self.dataset.layout == "cityscapes"
        protocol = cityscapes if is_city else classes
        return protocol.score(pairs, self.dataset, self._values)

    def _labels(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        return self._train_ids(pair, self.scores["values"])

    def _train_ids(self, pair: Pair, kind: str) -> tuple[np.ndarray, np.ndarray]:
        truth, prediction = classes.read_pair(pair)
        if kind == "label_id":
            prediction = to_train_ids(prediction, self.dataset.label_lut, pair.prediction)
        return to_train_ids(truth, self.dataset.label_lut, pair.truth), prediction

    def _image_name(self, file: Path) -> str:
        return frame_name(file) if self.dataset.layout == "cityscapes" else file.stem

    def _find_images(self, folder: Path) -> dict[str, Path]:
        wanted = {pair.name for pair in self.pairs}
        labels = {pair.truth for pair in self.pairs}  # a list file's may lie in the same folder
        found = index(
            (
                file
                for file in files(folder, "**/*")
                if file.suffix.lower() in IMAGE_SUFFIXES
                and self._image_name(file) in wanted
                and file not in labels
            ),
            self._image_name,
        )
        missing = sorted(wanted - found.keys())
        if missing:
            raise DataError(f"{folder}: no image {missing[0]}.* in it")
        return found


class KittiEvaluation(Evaluation):
    """Confidences for road: scored officially, and shown at the threshold with the largest F1.

    ``official`` holds the scores in bird's-eye view; ``scores`` are those of the thresholded
    perspective pictures.
    """

    def rows(self) -> list[Row]:
        """List MaxF and AP of every category, then the scores of the pictures."""
        official = [
            self._row(f"{category['name']} {measure}", category[key])
            for category in self.official["categories"]
            for measure, key in (("MaxF", "max_f"), ("AP", "ap"))
        ]
        return official + super().rows()

    def _find(self, ground_truth: Path, predictions: Path) -> list[Pair]:
        pairs = kitti.find_kitti_pairs(ground_truth, predictions, self._names)
        roads = [pair for pair in pairs if "_road_" in pair.name]
        if not roads:
            raise DataError(f"{ground_truth}: only lanes (um_lane_*) are asked for, no road frame")
        return roads

    def _find_refined(self, ground_truth: Path, refined: Path) -> list[Pair]:
        return kitti.find_kitti_pairs(ground_truth, refined, self._names, suffixes=(".png",))

    def _score(self) -> dict[str, Any]:
        self._road = kitti.road_class(self.dataset)
        self.official = kitti.score(self.pairs, self.dataset)
        self._thresholds = {
            row["name"]: row["threshold"] or 255 for row in self.official["categories"]
        }
        return self._count(self.pairs, self._labels)

    def _score_labels(self, pairs: list[Pair]) -> dict[str, Any]:
        return self._count(pairs, lambda pair: self._train_ids(pair, "train_id"))

    def _count(self, pairs: list[Pair], read: Labels) -> dict[str, Any]:
        def count(pair: Pair) -> classes.FrameCounts:
            return classes.count_pixels(pair, *read(pair), self.dataset)

        return classes.summary(in_threads(count, pairs, "Scoring"), "train_id", self.dataset)

    def _labels(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        confidence = kitti.read_confidence(pair.prediction, self._road)
        is_road = confidence >= self._thresholds[pair.name.rsplit("_", 1)[0]]
        return self._truth(pair, confidence), is_road.astype(np.uint8)

    def _train_ids(self, pair: Pair, kind: str) -> tuple[np.ndarray, np.ndarray]:
        prediction = read_label(pair.prediction)
        return self._truth(pair, prediction), prediction

    def _truth(self, pair: Pair, prediction: np.ndarray) -> np.ndarray:
        truth = LAYOUTS["kitti"].read_label(pair.truth)
        if truth.shape != prediction.shape:
            raise DataError(
                f"{pair.prediction}: it is {prediction.shape[1]}x{prediction.shape[0]}; a report "
                f"needs the perspective of the image, {truth.shape[1]}x{truth.shape[0]}"
            )
        return truth

    def _image_name(self, file: Path) -> str:
        return kitti.road_frame(file.stem)
