"""KITTI road as a report shows it: confidences, and the road where they are high enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.datasets import LAYOUTS
from data_iter.errors import DataError
from data_iter.image_files import read_label
from tools.reporting.evaluation import Evaluation, Row
from tools.scoring import classes, kitti
from tools.shared.pairs import Names, Pair
from tools.shared.parallel import in_threads

Labels = Callable[[Pair], tuple[np.ndarray, np.ndarray]]  # truth and prediction, train ids


class KittiEvaluation(Evaluation):
    """Confidences for road: scored officially, and shown at the threshold with the largest F1.

    ``official`` holds the scores in bird's-eye view; ``scores`` are those of the thresholded
    perspective pictures.
    """

    file_reader = staticmethod(kitti.read_confidence)

    def rows(self) -> list[Row]:
        """List MaxF and AP of every category, then the scores of the pictures."""
        official = [
            self._row(f"{category['name']} {measure}", category[key])
            for category in self.official["categories"]
            for measure, key in (("MaxF", "max_f"), ("AP", "ap"))
        ]
        return official + super().rows()

    @staticmethod
    def _find(
        dataset: DatasetSpec, ground_truth: Path, predictions: Path, names: Names
    ) -> list[Pair]:
        pairs = kitti.find_kitti_pairs(ground_truth, predictions, names)
        roads = [pair for pair in pairs if "_road_" in pair.name]
        if not roads:
            raise DataError(f"{ground_truth}: only lanes (um_lane_*) are asked for, no road frame")
        return roads

    @staticmethod
    def _find_refined(
        dataset: DatasetSpec, ground_truth: Path, refined: Path, names: Names
    ) -> list[Pair]:
        return kitti.find_kitti_pairs(ground_truth, refined, names, suffixes=(".png",))

    def _score(self) -> dict[str, Any]:
        return kitti.score(self.pairs, self.dataset, self._threads, self._read)

    def _score_pictures(self) -> dict[str, Any]:
        self._thresholds = {
            row["name"]: 255 if row["threshold"] is None else row["threshold"]
            for row in self.official["categories"]
        }
        return self._count(self.pairs, self._labels)

    def _score_refined(self) -> dict[str, Any]:
        return self._count(self.refined_pairs, self._refined_pair)

    def _count(self, pairs: Sequence[Pair], read: Labels) -> dict[str, Any]:
        def count(pair: Pair) -> classes.FrameCounts:
            return classes.count_pixels(pair, *read(pair), self.dataset)

        frames = in_threads(count, pairs, "Scoring", self._threads)
        return classes.summary(frames, "train_id", self.dataset)

    def _labels(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        confidence = self._read(pair.prediction, self.dataset)
        is_road = confidence >= self._thresholds[pair.name.rsplit("_", 1)[0]]
        return self._with_truth(pair, is_road.astype(np.uint8))

    def _refined_pair(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        return self._with_truth(pair, self._refined_labels(pair))

    def _refined_labels(self, pair: Pair) -> np.ndarray:
        return read_label(pair.prediction)

    def _with_truth(self, pair: Pair, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        truth = LAYOUTS["kitti"].read_label(pair.truth)
        if truth.shape != prediction.shape:
            raise DataError(
                f"{pair.prediction}: it is {prediction.shape[1]}x{prediction.shape[0]}; a report "
                f"needs the perspective of the image, {truth.shape[1]}x{truth.shape[0]}"
            )
        return truth, prediction

    @staticmethod
    def _image_name(file: Path, layout: str) -> str:
        return kitti.road_frame(file.stem)
