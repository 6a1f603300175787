"""Scores of predicted label maps: IoU per class, their mean, pixel accuracy.

What PASCAL VOC, Cityscapes and CamVid have in common: pixels whose true label is ignored do not
count; a class's IoU is TP / (TP + FP + FN) over all images together; the mean is over the classes
that occur in truth or prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.image_files import read_label
from data_iter.labels import ranges, to_train_ids
from train.metrics import iou, joint_histogram, mean_score, pixel_accuracy

from tools.shared.parallel import in_threads
from tools.shared.pairs import Pair


class FrameCounts(NamedTuple):
    """One frame's pixel counts, with predicted values as they are in the file.

    Attributes
    ----------
    pair : Pair
        The files.
    values : ndarray
        (256,) int64 pixels of each value of the prediction, ignored truth included.
    joint : ndarray
        (L, 256) int64 pixels of each true class (row) and predicted value (column).
    """

    pair: Pair
    values: np.ndarray
    joint: np.ndarray


def count_pixels(
    pair: Pair, truth: np.ndarray, prediction: np.ndarray, dataset: DatasetSpec
) -> FrameCounts:
    """Count one frame's pixels; ``DataError`` names the file that holds a value it must not."""
    joint = joint_histogram(truth, prediction)
    lut = dataset.label_lut
    if np.any(lut[np.flatnonzero(joint.sum(axis=1))] < 0):
        to_train_ids(truth, lut, pair.truth)  # raises, with the likely cause
    classes = [joint[lut == train_id].sum(axis=0) for train_id in range(dataset.num_classes)]
    return FrameCounts(pair, joint.sum(axis=0), np.stack(classes))


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read label file and prediction, which must be of the same size."""
    truth, prediction = read_label(pair.truth), read_label(pair.prediction)
    if truth.shape != prediction.shape:
        raise DataError(
            f"{pair.prediction}: the prediction is {prediction.shape[1]}x{prediction.shape[0]}, "
            f"its label file {truth.shape[1]}x{truth.shape[0]} (width x height)"
        )
    return truth, prediction


Read = Callable[[Pair], tuple[np.ndarray, np.ndarray]]


def label_values(dataset: DatasetSpec) -> set[int]:
    """List the official values that a prediction may hold: those of the table, but not 'ignore'."""
    return {row.id for row in dataset.classes} - {dataset.ignore_id}


def check_values(file: Path, counts: np.ndarray, legal: set[int]) -> None:
    """Raise ``DataError`` where a prediction holds a value that is none of ``legal``."""
    outside = [value for value in np.flatnonzero(counts).tolist() if value not in legal]
    if outside:
        raise DataError(
            f"{file}: predicted value {outside[0]} at {counts[outside[0]]} pixels; "
            f"expected {ranges(np.array(sorted(legal)))}"
        )


def values_kind(
    counts: Mapping[Path, np.ndarray], dataset: DatasetSpec, asked: str | None = None
) -> str:
    """Tell whether predictions hold official label ids or train ids.

    A value that only the official table has shows label ids. Without one, a train id that is no
    class as a label id shows train ids.

    Parameters
    ----------
    counts : mapping of Path to ndarray
        (256,) pixels of each value in each prediction.
    asked : str, optional
        ``label_id`` or ``train_id``, where the user said so; then the values are only checked.

    Raises
    ------
    DataError
        A file does not hold what the others hold or the user said.
    ConfigError
        The values fit both.
    """
    train_ids = set(range(dataset.num_classes))
    for file, count in counts.items():
        check_values(file, count, label_values(dataset) | train_ids)
    classes = [row.id for row in dataset.train_classes]
    if classes == list(train_ids):
        kind = "train_id"
    elif asked:
        kind = asked
    else:
        values = {file: set(np.flatnonzero(count).tolist()) for file, count in counts.items()}
        as_labels = [file for file in values if values[file] - train_ids]
        as_train = [
            file for file in values if values[file] <= train_ids and values[file] - set(classes)
        ]
        if as_labels and as_train:
            raise DataError(
                f"{as_train[0]}: looks like train ids, but {as_labels[0]} holds label ids; "
                "say --values label_id if all do"
            )
        if not as_labels and not as_train:
            raise ConfigError(
                f"{next(iter(counts)).parent}: the predicted values fit label ids and train ids; "
                "say which with --values"
            )
        kind = "label_id" if as_labels else "train_id"
    legal = label_values(dataset) if kind == "label_id" else train_ids
    for file, count in counts.items():
        check_values(file, count, legal)
    return kind


def confusion_of(joint: np.ndarray, kind: str, dataset: DatasetSpec) -> np.ndarray:
    """Turn (L, 256) counts of predicted values into (L, L + 1) counts of predicted classes.

    The last column holds predictions of an official label that is not scored.
    """
    ids = range(dataset.num_classes)
    columns = ids if kind == "train_id" else dataset.train_to_label[: len(ids)]
    scored = joint[:, columns]
    return np.column_stack([scored, joint.sum(axis=1) - scored.sum(axis=1)])


def summary(frames: Sequence[FrameCounts], kind: str, dataset: DatasetSpec) -> dict[str, Any]:
    """Score all frames together; NaN becomes None."""
    confusion = confusion_of(sum(frame.joint for frame in frames), kind, dataset)
    scores = iou(confusion)
    return {
        "dataset": dataset.name,
        "images": len(frames),
        "values": kind,
        "mean_iou": or_none(mean_score(scores)),
        "pixel_accuracy": or_none(pixel_accuracy(confusion)),
        "valid_pixels": int(confusion.sum()),
        "classes": [
            {
                "name": row.name,
                "iou": or_none(scores[train_id]),
                "valid_pixels": int(confusion[train_id].sum()),
                "predicted_pixels": int(confusion[:, train_id].sum()),
            }
            for train_id, row in enumerate(dataset.train_classes)
        ],
        "confusion": confusion.tolist(),
        "frames": [_frame(frame, kind, dataset) for frame in frames],
    }


def _frame(frame: FrameCounts, kind: str, dataset: DatasetSpec) -> dict[str, Any]:
    confusion = confusion_of(frame.joint, kind, dataset)
    scores = iou(confusion)
    return {
        "name": frame.pair.name,
        "mean_iou": or_none(mean_score(scores)),
        "pixel_accuracy": or_none(pixel_accuracy(confusion)),
        "iou": [or_none(score) for score in scores],
    }


def or_none(score: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(score) else float(score)


def score(
    pairs: Sequence[Pair],
    dataset: DatasetSpec,
    values: str | None = None,
    threads: int | None = None,
    read: Read = read_pair,
) -> dict[str, Any]:
    """Score predictions of any class table.

    Parameters
    ----------
    pairs : sequence of Pair
        The files, at least one pair.
    dataset : DatasetSpec
        Its class table.
    values : str, optional
        ``label_id`` or ``train_id``: what predictions hold, where their values do not tell.
    read : callable
        Gives a pair's truth and prediction; of files by default.

    Returns
    -------
    dict
        Ready for JSON: ``mean_iou``, ``pixel_accuracy``, ``classes`` (a row per class),
        ``confusion`` ((L, L + 1), rows are true classes, the last column other predictions),
        ``frames`` (a row per image).
    """

    def count(pair: Pair) -> FrameCounts:
        return count_pixels(pair, *read(pair), dataset)

    frames = in_threads(count, pairs, "Scoring", threads)
    counts = {frame.pair.prediction: frame.values for frame in frames}
    return summary(frames, values_kind(counts, dataset, values), dataset)
