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
        A value of either is no class, also a prediction at a pixel that is not counted.
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

    TP / (TP + FP + FN) (Cityscapes, PASCAL VOC). A class in neither truth nor prediction has none:
    NaN; one that is only predicted, or only missed, has 0.

    Parameters
    ----------
    confusion : ndarray
        (L, L) counts with true classes in rows, or (L, more): columns beyond L hold predictions
        that are no class, which count as missed.
    """
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0)[: len(hits)] + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_score(scores: Iterable[float]) -> float:
    """Mean of the scores that are not NaN: absent classes take no part. NaN where all are."""
    present = [float(score) for score in scores if not np.isnan(score)]
    return sum(present) / len(present) if present else float("nan")


def or_none(score: float) -> float | None:
    """Return a score as JSON has it: NaN becomes None."""
    return None if np.isnan(score) else float(score)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of counted pixels whose class is right; NaN where none is counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")
