"""Scale, crop and mirror: pure functions; the random one takes its generator.

Images are (H, W, 3) uint8, labels (H, W) uint8. Resizing follows the release: bilinear without
smoothing for images, nearest for labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from .patches import Patch


class Crop(NamedTuple):
    """What :func:`draw_crop` decided: where to cut a resized image, and whether to mirror the cut."""

    scale: float
    top: int  # in pixels of the resized image; may be negative
    left: int
    mirror: bool


def draw_crop(
    random: np.random.Generator,
    patch: Patch,
    crop_hw: tuple[int, int],
    scales: Sequence[float],
    mirror: bool,
) -> Crop:
    """Draw a scale, a crop inside the resized patch, and a mirroring with probability 1/2.

    Where the resized patch is smaller than the crop, the crop is placed at random around it.
    """
    scale = scales[random.integers(len(scales))]
    corner = []
    for start, side, crop in zip(patch[:2], patch[2:], crop_hw):
        first, last = round(start * scale), round((start + side) * scale) - crop
        corner.append(int(random.integers(min(first, last), max(first, last) + 1)))
    return Crop(scale, *corner, mirror=bool(mirror and random.random() < 0.5))


def resized_window(
    pixels: np.ndarray, scale: float, top: int, left: int, hw: tuple[int, int], interpolation: int
) -> tuple[np.ndarray, int, int]:
    """Resize by ``scale`` and cut the window at (``top``, ``left``), reading no more than it needs.

    Returns the part of the window that the resized image covers, possibly empty, and the row and
    column of the window where that part begins.
    """
    rows = _span(top, hw[0], round(pixels.shape[0] * scale))
    columns = _span(left, hw[1], round(pixels.shape[1] * scale))
    y, x = rows.start - top, columns.start - left
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return pixels[:0, :0], 0, 0
    if scale == 1:
        return pixels[rows, columns], y, x
    source_rows, skip_y = _source(rows, pixels.shape[0], scale)
    source_columns, skip_x = _source(columns, pixels.shape[1], scale)
    resized = cv2.resize(
        pixels[source_rows, source_columns], None, fx=scale, fy=scale, interpolation=interpolation
    )
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return resized[skip_y : skip_y + height, skip_x : skip_x + width], y, x


def _span(start: int, length: int, limit: int) -> slice:
    return slice(min(max(start, 0), limit), min(max(start + length, 0), limit))


def _source(window: slice, limit: int, scale: float) -> tuple[slice, int]:
    """Source pixels that ``window`` of the resized axis needs, and how many resized ones to skip.

    The source begins at a multiple of the scale's denominator, where the sampling pattern of a
    resize repeats: resizing the part then gives just what resizing the whole would give.
    """
    ratio = Fraction(scale).limit_denominator(64)
    if abs(ratio - scale) > 1e-9:  # no short period: take it all
        return slice(0, limit), window.start
    period_out, period_in = ratio.numerator, ratio.denominator
    first = max(window.start // period_out - 1, 0)
    last = min(-(-window.stop // period_out) + 1, -(-limit // period_in))
    skip = window.start - first * period_out
    return slice(first * period_in, min(last * period_in, limit)), skip
