"""Which regions of an image an epoch visits (paper, sections 4.1.1, 4.1.2 and 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SEVEN_FOLD_JITTER = 160  # pixels: side of the square that a crop's centre is drawn from


class Patch(NamedTuple):
    """A region in pixels; it may reach beyond the image, and a crop is placed at random inside."""

    top: int
    left: int
    height: int
    width: int


def plan(
    kind: str,
    image_hw: tuple[int, int],
    crop_hw: tuple[int, int],
    patch_hw: tuple[int, int] = (800, 800),
    stride: int = 100,
) -> list[Patch]:
    """List the regions of an image of ``image_hw`` pixels that one epoch visits once each.

    ``12fold``
        Twelve 800x800 patches with overlap (4.1.1): two rows of six, evenly spaced from border to
        border (the paper does not give the grid).
    ``7fold``
        Seven centres at half the height and 1/8 ... 7/8 of the width (4.1.2: row 512, columns
        256 ... 1792 of 1024x2048); a crop's centre lies in the 160x160 square around it, so the
        region is the crop grown by 160.
    ``grid``
        ``patch_hw`` patches every ``stride`` pixels (4.2), the last ones flush with the border.
    ``image``
        The whole image, once.
    """
    height, width = image_hw
    if kind == "12fold":
        tops, lefts = _spaced(height, 800, 2), _spaced(width, 800, 6)
        return [Patch(top, left, 800, 800) for top in tops for left in lefts]
    if kind == "7fold":
        region_h, region_w = crop_hw[0] + SEVEN_FOLD_JITTER, crop_hw[1] + SEVEN_FOLD_JITTER
        return [
            Patch(height // 2 - region_h // 2, width * k // 8 - region_w // 2, region_h, region_w)
            for k in range(1, 8)
        ]
    if kind == "grid":
        tops, lefts = _strided(height, patch_hw[0], stride), _strided(width, patch_hw[1], stride)
        return [Patch(top, left, *patch_hw) for top in tops for left in lefts]
    if kind == "image":
        return [Patch(0, 0, height, width)]
    raise ValueError(f"patches {kind}: expected 12fold, 7fold, grid or image")


def _spaced(length: int, side: int, count: int) -> list[int]:
    return np.linspace(0, max(length - side, 0), count).round().astype(int).tolist()


def _strided(length: int, side: int, stride: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, stride), last]
