"""The confusion matrix and the scores that follow from it, for training and for every tool."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def joint_histogram(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count how often each pair of values occurs at the same pixel.

    Parameters
    ----------
    truth, prediction : ndarray
        uint8, of one shape.

    Returns
    -------
    ndarray
        (256, 256) int64; rows are values of ``truth``, columns of ``prediction``.
    """
    if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise TypeError(f"expected uint8, found {truth.dtype} and {prediction.dtype}")
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes {truth.shape} and {prediction.shape} differ")
    pairs = np.left_shift(truth, 8, dtype=np.intp)  # bincount would convert any other type
    pairs |= prediction
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


def confusion_matrix(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int
) -> np.ndarray:
    """Count predictions per true class.

    Parameters
    ----------
    truth, prediction : ndarray
        uint8 train ids, of one shape.
    classes : int
        Number of classes L; ids run from 0.
    ignore : int
        Value of ``truth`` at pixels that are not counted.

    Returns
    -------
    ndarray
        (L, L) int64; rows are true classes, columns predicted ones.

    Raises
    ------
    ValueError
        A value of either is not a class, even a prediction at a pixel that is not counted.
    """
    joint = joint_histogram(truth, prediction)
    for name, counts, allowed in (
        ("truth", joint.sum(axis=1), {*range(classes), ignore}),
        ("prediction", joint.sum(axis=0), set(range(classes))),
    ):
        outside = sorted(set(np.flatnonzero(counts).tolist()) - allowed)
        if outside:
            raise ValueError(
                f"{name} value {outside[0]} at {counts[outside[0]]} pixels, "
                f"expected 0..{classes - 1}"
            )
    joint[ignore] = 0
    return joint[:classes, :classes].copy()


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (L,) float64.

    TP / (TP + FP + FN) (Cityscapes, PASCAL VOC). It is NaN for a class that occurs in neither truth
    nor prediction, and 0 for a class that is only predicted, or only missed.

    Parameters
    ----------
    confusion : ndarray
        (L, L) counts with true classes in rows, or (L, more): columns beyond L hold predictions of
        other values, which count as missed.
    """
    hits, missed, wrong = _counts(confusion)
    return _share(hits, hits + missed + wrong)


def precision(confusion: np.ndarray) -> np.ndarray:
    """Share of the pixels predicted as a class that are of it, TP / (TP + FP), (L,) float64.

    NaN where the class is never predicted. ``confusion`` is that of :func:`iou`.
    """
    hits, _, wrong = _counts(confusion)
    return _share(hits, hits + wrong)


def recall(confusion: np.ndarray) -> np.ndarray:
    """Share of a class's pixels that are predicted as it, TP / (TP + FN), (L,) float64.

    NaN where the truth has no pixel of the class. The mean is also called mean (class) accuracy.
    """
    hits, missed, _ = _counts(confusion)
    return _share(hits, hits + missed)


def dice(confusion: np.ndarray) -> np.ndarray:
    """Dice coefficient (F1 score) of each class, 2 TP / (2 TP + FP + FN), (L,) float64.

    NaN where IoU is; equals 2 IoU / (1 + IoU).
    """
    hits, missed, wrong = _counts(confusion)
    return _share(2 * hits, 2 * hits + missed + wrong)


def frequency_weighted_iou(confusion: np.ndarray) -> float:
    """Mean IoU in which each class weighs as many pixels as the truth has of it.

    Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
    (CVPR 2015, section 5). NaN where no pixel is counted.
    """
    hits, missed, _ = _counts(confusion)
    weights, total = hits + missed, confusion.sum()
    return float((weights * np.nan_to_num(iou(confusion))).sum() / total) if total else float("nan")


def _counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return TP, FN and FP of each class, (L,) float64."""
    hits = np.diag(confusion).astype(np.float64)
    return hits, confusion.sum(axis=1) - hits, confusion.sum(axis=0)[: len(hits)] - hits


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def mean_score(scores: Iterable[float]) -> float:
    """Mean of the scores that are not NaN, so absent classes are left out; NaN if all are NaN."""
    present = [float(score) for score in scores if not np.isnan(score)]
    return sum(present) / len(present) if present else float("nan")


def or_none(score: float) -> float | None:
    """Return a score for JSON: NaN becomes None."""
    return None if np.isnan(score) else float(score)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of counted pixels whose class is right; NaN if no pixel is counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")
