"""The content of a report: a folder of predictions with its scores, images and label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from data_iter.image_files import read_image
from data_iter.labels import to_train_ids
from data_iter.listing import IMAGE_SUFFIXES
from tools.scoring import classes
from tools.scoring.folder import label_protocol
from tools.shared.pairs import Names, Pair, files, find_pairs, frame_name, index

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
    pairs : sequence of Pair
        Label files and predictions.
    images : mapping of str to Path
        The image of each pair, by the pair's name.
    refined_pairs : sequence of Pair, optional
        Label files and the CRF's results.
    values : str, optional
        ``label_id`` or ``train_id``: what predictions hold, if their values do not decide it.
    read : callable, optional
        What gives a prediction, as the protocol's ``score`` takes it; by default its file.
    threads : int, optional
        That read and count; all that the process may use by default.

    Attributes
    ----------
    official : dict
        What the data set's protocol returns.
    scores, refined : dict
        As :func:`tools.scoring.classes.score` returns them; ``refined`` is None without a CRF.

    Raises ``DataError`` if a file is missing or wrong.
    """

    file_reader: Any = staticmethod(classes.read_pair)

    def __init__(
        self,
        dataset: DatasetSpec,
        pairs: Sequence[Pair],
        images: Mapping[str, Path],
        refined_pairs: Sequence[Pair] = (),
        values: str | None = None,
        read: Callable[..., Any] | None = None,
        threads: int | None = None,
    ):
        self.dataset, self.pairs, self._images = dataset, pairs, images
        self.refined_pairs, self._values, self._threads = refined_pairs, values, threads
        self._read = read or self.file_reader
        self.official = self._score()
        self.scores = self._score_pictures()
        self.refined = self._score_refined() if refined_pairs else None

    @classmethod
    def of_folders(
        cls,
        dataset: DatasetSpec,
        images: Path,
        ground_truth: Path,
        predictions: Path,
        refined: Path | None = None,
        names: Names = None,
        values: str | None = None,
    ) -> Evaluation:
        """Find images (they may lie deeper), label files, predictions and the CRF's results.

        With ``names`` only these frames: see :func:`tools.shared.pairs.read_frames`.
        """
        pairs = cls._find(dataset, ground_truth, predictions, names)
        refined_pairs = cls._find_refined(dataset, ground_truth, refined, names) if refined else ()
        return cls(dataset, pairs, cls._find_images(dataset, images, pairs), refined_pairs, values)

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
            refined = self._refined_labels(self.refined_pairs[number])
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

    def _score(self) -> dict[str, Any]:
        return label_protocol(self.dataset).score(
            self.pairs, self.dataset, self._values, self._threads, self._read
        )

    def _score_pictures(self) -> dict[str, Any]:
        return self.official

    def _score_refined(self) -> dict[str, Any]:
        return label_protocol(self.dataset).score(self.refined_pairs, self.dataset, self._values)

    def _labels(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        return self._train_ids(*self._read(pair), pair, self.scores["values"])

    def _refined_labels(self, pair: Pair) -> np.ndarray:
        return self._train_ids(*classes.read_pair(pair), pair, self.refined["values"])[1]

    def _train_ids(
        self, truth: np.ndarray, prediction: np.ndarray, pair: Pair, kind: str
    ) -> tuple[np.ndarray, np.ndarray]:
        if kind == "label_id":
            prediction = to_train_ids(prediction, self.dataset.label_lut, pair.prediction)
        return to_train_ids(truth, self.dataset.label_lut, pair.truth), prediction

    @staticmethod
    def _find(
        dataset: DatasetSpec, ground_truth: Path, predictions: Path, names: Names
    ) -> list[Pair]:
        return find_pairs(dataset.layout, ground_truth, predictions, names)

    _find_refined = _find

    @staticmethod
    def _image_name(file: Path, layout: str) -> str:
        return frame_name(file) if layout == "cityscapes" else file.stem

    @classmethod
    def _find_images(
        cls, dataset: DatasetSpec, folder: Path, pairs: Sequence[Pair]
    ) -> dict[str, Path]:
        def name_of(file: Path) -> str:
            return cls._image_name(file, dataset.layout)

        wanted = {pair.name for pair in pairs}
        labels = {pair.truth for pair in pairs}  # a list file's may lie in the same folder
        found = index(
            (
                file
                for file in files(folder, "**/*")
                if file.suffix.lower() in IMAGE_SUFFIXES
                and name_of(file) in wanted
                and file not in labels
            ),
            name_of,
        )
        missing = sorted(wanted - found.keys())
        if missing:
            raise DataError(f"{folder}: no image {missing[0]}.* in it")
        return found
