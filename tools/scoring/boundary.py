"""Boundary IoU: how well the outlines of classes fit, independent of their areas.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation" (CVPR 2021): the IoU of a class between the parts of its true and its
predicted mask that lie within ``d`` pixels of the mask's own outline, with ``d`` 2% of the image's
diagonal. The border of the image is part of an outline, and distances are those of a square
(3x3 erosions), both as in the authors' code. Counts are summed over the images, as for IoU.

The paper measures single objects. Here a mask is all pixels of a class. Pixels whose true label is
ignored belong to no mask, neither of the truth nor of the prediction, so that a prediction that is
right at all labelled pixels scores 1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from train.metrics import joint_histogram

SHARE = 0.02  # of the image's diagonal: the width of a band (the paper's default)


def boundary_histogram(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int
) -> np.ndarray:
    """Count how often each pair of values occurs, with both, one or neither inside its band.

    Parameters
    ----------
    truth : ndarray
        (H, W) uint8 train ids.
    prediction : ndarray
        (H, W) uint8; any values but ``ignore`` stand for classes.
    classes : int
        Number of train ids L.
    ignore : int
        The ignored train id, L or more; as a value it also stands for "not in a band".

    Returns
    -------
    ndarray
        (L + 1, 256) int64; rows are train ids, and in the last one "not in a band"; columns are
        values of ``prediction``.
    """
    distance = max(1, round(SHARE * math.hypot(*truth.shape)))
    known = np.where(truth == ignore, np.uint8(ignore), prediction)
    pairs = joint_histogram(_bands(truth, distance, ignore), _bands(known, distance, ignore))
    return pairs[[*range(classes), ignore]]


def boundary_iou(histogram: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Boundary IoU of each class, (L,) float64; NaN where neither band has a pixel.

    ``histogram`` is that of :func:`boundary_histogram`, summed over images; ``values`` (L,) are the
    predicted values of the classes.
    """
    classes = np.arange(len(values))
    both = histogram[classes, values].astype(np.float64)
    union = histogram.sum(axis=1)[classes] + histogram.sum(axis=0)[values] - both
    return np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)


def _bands(labels: np.ndarray, distance: int, ignore: int) -> np.ndarray:
    """Keep the pixels with another value, or the image's border, within ``distance``."""
    square = np.ones((2 * distance + 1,) * 2, np.uint8)
    # Outside of the image the smallest and the largest value differ from any value inside.
    lowest = cv2.erode(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    highest = cv2.dilate(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return np.where(lowest == highest, np.uint8(ignore), labels)
