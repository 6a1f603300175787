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

from .patches import Centre, Patch


class Crop(NamedTuple):
    """The result of :func:`draw_crop`: where to cut a resized image, and whether to mirror it."""

    scale: float
    top: int  # in pixels of the resized image; may be negative
    left: int
    mirror: bool


class Window(NamedTuple):
    """A crop of a resized image in terms of the image itself; empty if they don't overlap."""

    scale: float
    rows: slice  # source pixels that the crop needs
    columns: slice
    skip: tuple[int, int]  # rows and columns of the resized source before the crop begins
    hw: tuple[int, int]  # the part of the crop that the image covers
    offset: tuple[int, int]  # where in the crop that part begins
    nearest: tuple[np.ndarray, np.ndarray]  # rows and columns of the source for those of hw


def draw_crop(
    random: np.random.Generator,
    patch: Patch | Centre,
    crop_hw: tuple[int, int],
    scales: Sequence[float],
    mirror: bool,
) -> Crop:
    """Draw a scale, a place that the patch allows at it, and mirroring (probability 1/2)."""
    scale = scales[random.integers(len(scales))]
    top, left = (
        int(random.integers(first, last + 1)) for first, last in patch.corners(scale, crop_hw)
    )
    return Crop(scale, top, left, bool(mirror and random.random() < 0.5))


def find_window(
    image_hw: tuple[int, int], scale: float, top: int, left: int, crop_hw: tuple[int, int]
) -> Window:
    """Find the part of the image that the crop at (``top``, ``left``), after resizing, needs."""
    axes = (
        _axis(start, crop, side, scale) for start, crop, side in zip((top, left), crop_hw, image_hw)
    )
    (rows, columns), *pairs = zip(*axes)
    return Window(scale, rows, columns, *pairs)


def resize_window(source: np.ndarray, window: Window, interpolation: int) -> np.ndarray:
    """Resize ``source``, the window's part of an image, and return (h, w, ...) of ``window.hw``."""
    if 0 in window.hw:
        return source[:0, :0]
    if window.scale != 1 and interpolation == cv2.INTER_NEAREST:
        rows, columns = window.nearest
        return source[rows][:, columns]
    if window.scale != 1:
        source = cv2.resize(
            source, None, fx=window.scale, fy=window.scale, interpolation=interpolation
        )
    (y, x), (height, width) = window.skip, window.hw
    return source[y : y + height, x : x + width]


def draw_colours(random: np.random.Generator, jitter: Sequence[float]) -> np.ndarray:
    """Draw a linear change of an image's colours.

    Parameters
    ----------
    jitter : sequence of 4 float
        Largest change of brightness, contrast and saturation, as shares of 1 (0.3: a factor of 0.7
        to 1.3), and of hue, as a share of half the colour circle.

    Returns
    -------
    ndarray
        (3, 4) float64: ``new = matrix[:, :3] @ bgr + matrix[:, 3]``, values 0..255. Contrast
        stretches about middle grey (127.5), saturation about each pixel's luma (ITU-R BT.601), hue
        turns about the grey axis.
    """
    bounds = np.asarray(jitter, float) * random.uniform(-1, 1, 4)
    (brightness, contrast, saturation), angle = 1 + bounds[:3], np.pi * bounds[3]
    luma = np.tile([0.114, 0.587, 0.299], (3, 1))
    third, side = (1 - np.cos(angle)) / 3, np.sin(angle) / np.sqrt(3)
    turn = np.full((3, 3), third) + np.cos(angle) * np.eye(3)
    turn += side * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])  # Rodrigues, axis (1, 1, 1)
    linear = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * luma) @ turn
    return np.hstack([linear, np.full((3, 1), 127.5 * (1 - contrast) * brightness)])


def draw_blur(random: np.random.Generator, blur: float) -> float:
    """Draw the standard deviation, in pixels, of a Gaussian blur: 0 to ``blur``."""
    return float(random.uniform(0, blur))


def draw_angle(random: np.random.Generator, rotate: float) -> float:
    """Draw an angle in degrees: from -``rotate`` to ``rotate``."""
    return float(random.uniform(-rotate, rotate))


def enclosing(crop_hw: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return the size of the upright window that holds a crop turned about its centre.

    Its sides are longer than the crop's by even numbers, so both have one centre.
    """
    sine, cosine = abs(np.sin(np.radians(angle))), abs(np.cos(np.radians(angle)))
    height, width = crop_hw
    sides = (height * cosine + width * sine, width * cosine + height * sine)
    rows, columns = (
        crop + 2 * max(0, int(np.ceil((side - crop) / 2))) for side, crop in zip(sides, crop_hw)
    )
    return rows, columns


def turn(
    plane: np.ndarray, angle: float, crop_hw: tuple[int, int], interpolation: int, outside: float
) -> np.ndarray:
    """Cut a crop out of one channel, turned by ``angle`` degrees against the clock.

    Parameters
    ----------
    plane : ndarray
        (H, W) of the size of :func:`enclosing`, whose centre is the crop's.
    angle, crop_hw
        By how much its content turns, and the crop's size.
    interpolation : int
        ``cv2.INTER_LINEAR`` for images, ``cv2.INTER_NEAREST`` for labels.
    outside : float
        Value of what lies outside of ``plane``.
    """
    (height, width), (rows, columns) = crop_hw, plane.shape
    matrix = np.asarray(cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 1))
    matrix = matrix - [[0, 0, (columns - width) / 2], [0, 0, (rows - height) / 2]]
    return cv2.warpAffine(
        plane,
        matrix,
        (width, height),
        flags=interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[outside],
    )


def change_appearance(bgr: np.ndarray, colours: np.ndarray | None, blur: float) -> np.ndarray:
    """Blur (H, W, 3) uint8 by ``blur`` pixels, then apply a matrix of :func:`draw_colours`."""
    if blur > 0.1:  # below this, the kernel's neighbours round to zero
        bgr = cv2.GaussianBlur(bgr, (0, 0), blur, borderType=cv2.BORDER_REFLECT_101)
    return bgr if colours is None else cv2.transform(bgr, colours)


def _axis(
    start: int, length: int, side: int, scale: float
) -> tuple[slice, int, int, int, np.ndarray]:
    """Source, pixels to skip, pixels covered, offset and nearest pixels of a crop along one axis.

    The source begins at a multiple of the scale's denominator, where the sampling pattern of a
    resize repeats: resizing the part then equals resizing the whole. This fails for the nearest
    pixel: a position on the border of two pixels can be rounded to either (scale 1.3). So nearest
    positions are computed for the whole image, as OpenCV does.
    """
    limit = round(side * scale)
    first, last = min(max(start, 0), limit), min(max(start + length, 0), limit)
    ratio = Fraction(scale).limit_denominator(64)
    nearest = np.minimum((np.arange(first, last) * (1 / scale)).astype(int), side - 1)
    if first >= last:
        return slice(0, 0), 0, 0, 0, nearest
    if scale == 1:
        return slice(first, last), 0, last - first, first - start, nearest - first
    if abs(ratio - scale) > 1e-9:  # no short period: take it all
        return slice(0, side), first, last - first, first - start, nearest
    period_out, period_in = ratio.numerator, ratio.denominator
    begin = max(first // period_out - 1, 0)
    # Halves are rounded to even, and products may miss a half, so the start is moved until the
    # part ends as the whole does.
    while round((side - begin * period_in) * scale) != limit - begin * period_out:
        begin -= 1  # at 0 the part is the whole
    end = min(-(-last // period_out) + 1, -(-side // period_in))
    source = slice(begin * period_in, min(end * period_in, side))
    skip = first - begin * period_out
    return source, skip, last - first, first - start, nearest - source.start
