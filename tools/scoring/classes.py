"""Scores of predicted label maps: IoU per class, their mean, pixel accuracy.

PASCAL VOC, Cityscapes and CamVid share these rules: pixels whose true label is ignored do not
count; a class's IoU is TP / (TP + FP + FN) over all images together; the mean is over the classes
that occur in truth or prediction. Data sets other than the benchmarks have no official scores and
get further ones: precision, recall and Dice (:mod:`train.metrics`), frequency-weighted IoU, and
boundary IoU (:mod:`tools.scoring.boundary`). All scores are from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.image_files import read_label
from data_iter.labels import ranges, to_train_ids
from tools.scoring.boundary import boundary_histogram, boundary_iou
from tools.shared.pairs import Pair
from tools.shared.parallel import in_threads
from train.metrics import (
    dice,
    frequency_weighted_iou,
    iou,
    joint_histogram,
    mean_score,
    or_none,
    pixel_accuracy,
    precision,
    recall,
)

BENCHMARKS = ("cityscapes", "kitti", "voc")  # class tables whose scores are official
MEASURES = {  # of a class, by their keys in a result
    "iou": "IoU",
    "iiou": "iIoU",
    "precision": "precision",
    "recall": "recall",
    "dice": "Dice",
    "boundary_iou": "boundary IoU",
}


class FrameCounts(NamedTuple):
    """One frame's pixel counts, with the predicted values of the file.

    Attributes
    ----------
    pair : Pair
        The files.
    values : ndarray
        (256,) int64 pixels of each value of the prediction, ignored truth included.
    joint : ndarray
        (L, 256) int64 pixels of each true class (row) and predicted value (column).
    boundary : ndarray or None
        (L + 1, 256) int64 as :func:`tools.scoring.boundary.boundary_histogram` counts them; None
        for a benchmark.
    """

    pair: Pair
    values: np.ndarray
    joint: np.ndarray
    boundary: np.ndarray | None


def count_pixels(
    pair: Pair, truth: np.ndarray, prediction: np.ndarray, dataset: DatasetSpec
) -> FrameCounts:
    """Count one frame's pixels; ``DataError`` names a file with a forbidden value."""
    joint = joint_histogram(truth, prediction)
    lut = dataset.label_lut
    if np.any(lut[np.flatnonzero(joint.sum(axis=1))] < 0):
        to_train_ids(truth, lut, pair.truth)  # raises, with the likely cause
    classes = [joint[lut == train_id].sum(axis=0) for train_id in range(dataset.num_classes)]
    boundary = None
    if dataset.name not in BENCHMARKS:
        train_ids = to_train_ids(truth, lut, pair.truth)
        boundary = boundary_histogram(train_ids, prediction, dataset.num_classes, dataset.ignore_id)
    return FrameCounts(pair, joint.sum(axis=0), np.stack(classes), boundary)


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read label file and prediction; their sizes must agree."""
    truth, prediction = read_label(pair.truth), read_label(pair.prediction)
    if truth.shape != prediction.shape:
        raise DataError(
            f"{pair.prediction}: the prediction is {prediction.shape[1]}x{prediction.shape[0]}, "
            f"its label file {truth.shape[1]}x{truth.shape[0]} (width x height)"
        )
    return truth, prediction


Read = Callable[[Pair], tuple[np.ndarray, np.ndarray]]


def label_values(dataset: DatasetSpec) -> set[int]:
    """List the official values that a prediction may hold: those of the table except 'ignore'."""
    return {row.id for row in dataset.classes} - {dataset.ignore_id}


def check_values(file: Path, counts: np.ndarray, legal: set[int]) -> None:
    """Raise ``DataError`` if a prediction holds a value that is not in ``legal``."""
    outside = [value for value in np.flatnonzero(counts).tolist() if value not in legal]
    if outside:
        raise DataError(
            f"{file}: predicted value {outside[0]} at {counts[outside[0]]} pixels; "
            f"expected {ranges(np.array(sorted(legal)))}"
        )


def values_kind(
    counts: Mapping[Path, np.ndarray], dataset: DatasetSpec, asked: str | None = None
) -> str:
    """Decide whether predictions hold official label ids or train ids.

    A value that only the official table has indicates label ids. Without one, a train id that is
    not a class as a label id indicates train ids.

    Parameters
    ----------
    counts : mapping of Path to ndarray
        (256,) pixels of each value in each prediction.
    asked : str, optional
        ``label_id`` or ``train_id``, if the user gave it; the values are then only checked.

    Raises
    ------
    DataError
        A file holds another kind than the other files, or than the user gave.
    ConfigError
        The values fit both kinds.
    """
    train_ids = set(range(dataset.num_classes))
    if [row.id for row in dataset.train_classes] == list(train_ids):
        kind = "train_id"
    else:
        kind = asked or _told_by_values(counts, dataset, train_ids)
    legal = label_values(dataset) if kind == "label_id" else train_ids
    for file, count in counts.items():
        check_values(file, count, legal)
    return kind


def _told_by_values(
    counts: Mapping[Path, np.ndarray], dataset: DatasetSpec, train_ids: set[int]
) -> str:
    """Decide for :func:`values_kind` by the values alone."""
    for file, count in counts.items():
        check_values(file, count, label_values(dataset) | train_ids)
    learnt = {row.id for row in dataset.train_classes}
    values = {file: set(np.flatnonzero(count).tolist()) for file, count in counts.items()}
    as_labels = [file for file in values if values[file] - train_ids]
    as_train = [file for file in values if values[file] <= train_ids and values[file] - learnt]
    void = dataset.num_classes
    union = set().union(*values.values())
    if union - train_ids == {void} and union & train_ids - learnt:
        raise DataError(
            f"{as_labels[0]}: predicted value {void} beside train ids: a class more, for what is "
            f"ignored? Every pixel needs one of the classes 0-{void - 1}; say --values label_id if "
            "these are label ids"
        )
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
    return "label_id" if as_labels else "train_id"


def confusion_of(joint: np.ndarray, kind: str, dataset: DatasetSpec) -> np.ndarray:
    """Turn (L, 256) counts of predicted values into (L, L + 1) counts of predicted classes.

    The last column holds predictions of an official label that is not scored.
    """
    scored = joint[:, _values_of_classes(kind, dataset)]
    return np.column_stack([scored, joint.sum(axis=1) - scored.sum(axis=1)])


def _values_of_classes(kind: str, dataset: DatasetSpec) -> np.ndarray:
    """Predicted value of each train id."""
    ids = np.arange(dataset.num_classes)
    return ids if kind == "train_id" else dataset.train_to_label[ids]


def summary(frames: Sequence[FrameCounts], kind: str, dataset: DatasetSpec) -> dict[str, Any]:
    """Score all frames together; NaN becomes None."""
    confusion = confusion_of(sum(frame.joint for frame in frames), kind, dataset)
    scores = iou(confusion)
    result = {
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
    if dataset.name not in BENCHMARKS:
        values = _values_of_classes(kind, dataset)
        boundary = boundary_iou(sum(frame.boundary for frame in frames), values)
        _add_more(result, confusion, boundary)
    return result


def _add_more(result: dict[str, Any], confusion: np.ndarray, boundary: np.ndarray) -> None:
    """Add the measures that no benchmark uses, for each class and as means."""
    for name, scores in (
        ("precision", precision(confusion)),
        ("recall", recall(confusion)),
        ("dice", dice(confusion)),
        ("boundary_iou", boundary),
    ):
        result[f"mean_{name}"] = or_none(mean_score(scores))
        for row, score in zip(result["classes"], scores):
            row[name] = or_none(score)
    result["frequency_weighted_iou"] = or_none(frequency_weighted_iou(confusion))


def _frame(frame: FrameCounts, kind: str, dataset: DatasetSpec) -> dict[str, Any]:
    confusion = confusion_of(frame.joint, kind, dataset)
    scores = iou(confusion)
    return {
        "name": frame.pair.name,
        "mean_iou": or_none(mean_score(scores)),
        "pixel_accuracy": or_none(pixel_accuracy(confusion)),
        "iou": [or_none(score) for score in scores],
    }


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
        ``label_id`` or ``train_id``: what predictions hold, if their values do not decide it.
    read : callable
        Gives a pair's truth and prediction; of files by default.

    Returns
    -------
    dict
        Ready for JSON: ``mean_iou``, ``pixel_accuracy``, ``classes`` (a row per class),
        ``confusion`` ((L, L + 1), rows are true classes, the last column other predictions),
        ``frames`` (a row per image). If the class table is not a benchmark's, also
        ``frequency_weighted_iou``, and ``precision``, ``recall``, ``dice`` and ``boundary_iou`` of
        each class with their means, ``mean_precision`` and so on. Scores are from 0 to 1; a missing
        score is None.
    """

    def count(pair: Pair) -> FrameCounts:
        return count_pixels(pair, *read(pair), dataset)

    frames = in_threads(count, pairs, "Scoring", threads)
    counts = {frame.pair.prediction: frame.values for frame in frames}
    return summary(frames, values_kind(counts, dataset, values), dataset)
