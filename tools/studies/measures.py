"""Measures of the paper's claims beyond mIoU: gridding (Figure 5), and IoU by object size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

SIZES = {"small": 0.001, "medium": 0.01, "large": 1.0}  # largest share of the image
GROUPS = 25  # groups of neighbouring frames; the bootstrap draws a group as one


def gridding(labels: np.ndarray, periods: Sequence[int]) -> np.ndarray:
    """Mark the pixels, (H, W) bool, that belong to a checkerboard pattern; their mean is a share.

    Convolutions of dilation r compute r interleaved maps that share no input, so neighbours can
    disagree with period r feature pixels (section 3.2). A pixel counts if, along its row or its
    column, both labels one period away equal its own label and both labels half a period away
    differ from it. A pixel whose neighbours would lie outside the image does not count.

    Parameters
    ----------
    labels : ndarray
        (H, W) predicted classes.
    periods : sequence of int
        In pixels, even. A pixel counts once, even if several periods match.
    """
    found = np.zeros(labels.shape, bool)
    for picture, marks in ((labels, found), (labels.T, found.T)):
        width = picture.shape[1]
        for period in periods:
            half, inner = period // 2, slice(period, width - period)
            if width <= 2 * period:
                continue
            centre = picture[:, inner]

            def away(by: int, picture=picture, period=period, width=width) -> np.ndarray:
                return picture[:, period + by : width - period + by]

            same = (away(-period) == centre) & (away(period) == centre)
            marks[:, inner] |= same & (away(-half) != centre) & (away(half) != centre)
    return found


def size_counts(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count TP, FN and FP of one frame by the size of the region that a pixel belongs to.

    Regions are 8-connected pixels of one class. A true positive or false negative counts under the
    size of its true region. A false positive has no true region and counts under the size of its
    predicted region.

    Parameters
    ----------
    truth : ndarray
        (H, W) train ids; values of ``classes`` or more are ignored.
    prediction : ndarray
        (H, W) train ids.

    Returns
    -------
    ndarray
        (sizes, classes, 3) int64 in the order of :data:`SIZES`.
    """
    counts = np.zeros((len(SIZES), classes, 3), np.int64)
    valid = truth < classes
    for train_id in np.unique(np.concatenate([truth[valid], prediction[valid]])):
        if train_id >= classes:
            continue
        true, predicted = truth == train_id, (prediction == train_id) & valid
        of_truth, of_prediction = _size_bins(true), _size_bins(predicted)
        for column, pixels, bins in (
            (0, true & predicted, of_truth),
            (1, true & ~predicted, of_truth),
            (2, predicted & ~true, of_prediction),
        ):
            counts[:, train_id, column] += np.bincount(bins[pixels], minlength=len(SIZES))
    return counts


def _size_bins(mask: np.ndarray) -> np.ndarray:
    """(H, W) index of each region's size; values outside the mask are meaningless."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    limits = np.array(list(SIZES.values())) * mask.size
    return np.searchsorted(limits, stats[:, cv2.CC_STAT_AREA])[regions]


def size_ious(counts: np.ndarray) -> dict[str, float | None]:
    """Mean IoU over the classes that have true regions of a size, from summed counts."""
    result = {}
    for name, of_size in zip(SIZES, counts):
        present = of_size[:, 0] + of_size[:, 1] > 0
        ious = of_size[present, 0] / of_size[present].sum(axis=1)
        result[name] = float(ious.mean()) if present.any() else None
    return result


def grouped(frames: Iterable[np.ndarray]) -> list[list[list[int]]]:
    """Sum the (classes, 3) counts of consecutive frames in at most :data:`GROUPS` groups."""
    stacked = np.stack(list(frames))
    groups = np.array_split(stacked, min(GROUPS, len(stacked)))
    return [group.sum(axis=0).tolist() for group in groups]
