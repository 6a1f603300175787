"""The Cityscapes scores: class and category IoU, and the instance-level iIoU of both.

The protocol is that of ``csEvalPixelLevelSemanticLabeling`` (cityscapesScripts); the scores are
equal to its scores. iIoU weights the pixels of each instance by (average size of its class) / (its
size).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from tools.scoring.classes import (
    FrameCounts,
    Read,
    count_pixels,
    read_pair,
    summary,
    values_kind,
)
from tools.shared.pairs import Pair
from tools.shared.parallel import in_threads
from train.metrics import mean_score, or_none

# Mean pixels per instance in the training set (cityscapesScripts, args.avgClassSize).
AVERAGE_SIZE = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}


class Instances(NamedTuple):
    """A frame's instances: (n,) ids as in the file and (n, 256) pixels per predicted value."""

    ids: np.ndarray
    counts: np.ndarray


def score(
    pairs: Sequence[Pair],
    dataset: DatasetSpec,
    values: str | None = None,
    threads: int | None = None,
    read: Read = read_pair,
) -> dict[str, Any]:
    """Score Cityscapes predictions.

    Arguments and result are those of :func:`tools.scoring.classes.score`. The result also has
    ``categories``, ``mean_category_iou``, and, with ``*_instanceIds.png`` beside the label files,
    ``iiou`` of classes and categories, ``mean_iiou`` and ``mean_category_iiou``.
    """
    instance_level = any(_instance_file(pair.truth).is_file() for pair in pairs)

    def count(pair: Pair) -> tuple[FrameCounts, Instances | None]:
        truth, prediction = read(pair)
        frame = count_pixels(pair, truth, prediction, dataset)
        return frame, count_instances(pair, prediction) if instance_level else None

    counted = in_threads(count, pairs, "Scoring", threads)
    frames = [frame for frame, _ in counted]
    kind = values_kind({frame.pair.prediction: frame.values for frame in frames}, dataset, values)
    result = summary(frames, kind, dataset)
    confusion = np.array(result["confusion"])
    instances = [found for _, found in counted if found is not None]
    _add_categories(result, confusion, dataset)
    if instance_level:
        joint = sum(frame.joint for frame in frames)
        _add_instance_scores(result, joint, instances, kind, dataset)
    return result


def count_instances(pair: Pair, prediction: np.ndarray) -> Instances:
    """Count predicted values inside each instance of the frame's ``*_instanceIds.png``.

    Values above 1000 are (label id) * 1000 + (number of the instance); other values are regions
    without separate instances.
    """
    path = _instance_file(pair.truth)
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        pixels = None
    if pixels is None or pixels.shape != prediction.shape or pixels.dtype != np.uint16:
        found = "" if pixels is None else f", found {pixels.shape} of {pixels.dtype}"
        raise DataError(
            f"{path}: expected a 16-bit PNG of instance ids, as large as {pair.truth.name}{found}"
        )
    inside = pixels > 1000
    instances = pixels[inside]
    ids = np.flatnonzero(np.bincount(instances, minlength=1))
    position = np.zeros(1 << 16, np.intp)  # np.unique would sort all pixels
    position[ids] = np.arange(len(ids))
    cells = position[instances] * 256 + prediction[inside]
    return Instances(ids, np.bincount(cells, minlength=len(ids) * 256).reshape(len(ids), 256))


def _instance_file(truth: Path) -> Path:
    return truth.with_name(truth.name.replace("labelIds", "instanceIds"))


def _add_categories(result: dict[str, Any], confusion: np.ndarray, dataset: DatasetSpec) -> None:
    rows = []
    for name, members in _categories(dataset).items():
        hits = confusion[np.ix_(members, members)].sum()
        missed = confusion[members].sum() - hits
        wrong = confusion[:, members].sum() - hits
        rows.append({"name": name, "iou": _ratio(hits, hits + missed + wrong)})
    result["categories"] = rows
    result["mean_category_iou"] = _mean(row["iou"] for row in rows)


def _add_instance_scores(
    result: dict[str, Any],
    joint: np.ndarray,
    frames: Sequence[Instances],
    kind: str,
    dataset: DatasetSpec,
) -> None:
    """Add iIoU = iTP / (iTP + FP + iFN): hits and misses are weighted, false positives are not.

    ``joint`` is (L, 256), the pixels of each true class and predicted value.
    """
    value_of = {row.id: row.id if kind == "label_id" else row.train_id for row in dataset.classes}
    for train_id, row in enumerate(dataset.train_classes):
        iiou = None
        if row.name in AVERAGE_SIZE:
            hits, missed = _weighted(frames, {row.id: row.name}, [value_of[row.id]])
            predicted = joint[:, value_of[row.id]]
            wrong = predicted.sum() - predicted[train_id]
            iiou = _ratio(hits, hits + wrong + missed)
        result["classes"][train_id]["iiou"] = iiou
    for category, members in zip(result["categories"], _categories(dataset).values()):
        rows = [row for row in dataset.classes if row.category == category["name"]]
        iiou = None
        if all(row.has_instances for row in rows):
            # Predicting a class that is not scored (caravan) is predicting its category.
            values = [value_of[row.id] for row in rows]
            scored = {row.id: row.name for row in rows if row.name in AVERAGE_SIZE}
            hits, missed = _weighted(frames, scored, values)
            predicted = joint[:, values].sum(axis=1)
            wrong = predicted.sum() - predicted[members].sum()
            iiou = _ratio(hits, hits + wrong + missed)
        category["iiou"] = iiou
    result["mean_iiou"] = _mean(row["iiou"] for row in result["classes"])
    result["mean_category_iiou"] = _mean(row["iiou"] for row in result["categories"])


def _weighted(
    frames: Sequence[Instances], names: dict[int, str], values: Sequence[int]
) -> tuple[float, float]:
    """Sum the weighted hits (any of ``values`` predicted) and misses over the instances of labels.

    Sums in the order of the files, one instance after the other, as the official scorer does.
    """
    hits = missed = 0.0
    for frame in frames:
        for instance, counts in zip(frame.ids.tolist(), frame.counts):
            name = names.get(instance // 1000)
            if name:
                size, hit = int(counts.sum()), int(counts[values].sum())
                weight = AVERAGE_SIZE[name] / size
                hits += hit * weight
                missed += (size - hit) * weight
    return hits, missed


def _categories(dataset: DatasetSpec) -> dict[str, list[int]]:
    """Train ids of each category that has a train id."""
    categories: dict[str, list[int]] = {}
    for train_id, row in enumerate(dataset.train_classes):
        categories.setdefault(row.category, []).append(train_id)
    return categories


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _mean(scores: Iterable[float | None]) -> float | None:
    return or_none(mean_score(score for score in scores if score is not None))
