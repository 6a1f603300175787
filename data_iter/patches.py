"""Which regions of an image an epoch visits (paper, sections 4.1.1, 4.1.2 and 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Ranges = tuple[tuple[int, int], tuple[int, int]]  # first and last of rows, and of columns


class Patch(NamedTuple):
    """A region of the image, in its pixels; a crop lies inside it, or around it if larger."""

    top: int
    left: int
    height: int
    width: int

    def corners(self, scale: float, crop_hw: tuple[int, int]) -> Ranges:
        """Where the top left corner of a crop may lie, in pixels of the image resized by ``scale``.

        Patch and image are resized together and the crop is not, so the crop's centre is free to
        move by ``|side - crop / scale|`` pixels of the image along each axis.
        """
        ends = [
            (round(start * scale), round((start + side) * scale) - crop)
            for start, side, crop in zip(self[:2], self[2:], crop_hw)
        ]
        rows, columns = ((min(pair), max(pair)) for pair in ends)
        return rows, columns


class Centre(NamedTuple):
    """A pixel of the image; a crop's centre lies at most ``jitter`` pixels from it on each axis."""

    row: int
    column: int
    jitter: int

    def corners(self, scale: float, crop_hw: tuple[int, int]) -> Ranges:
        """Like :meth:`Patch.corners`; in pixels of the image the range is equal at every scale."""
        reach = int(self.jitter * scale)
        starts = [
            round(place * scale) - crop // 2
            for place, crop in zip((self.row, self.column), crop_hw)
        ]
        rows, columns = ((start - reach, start + reach) for start in starts)
        return rows, columns


def plan(
    kind: str,
    image_hw: tuple[int, int],
    patch_hw: tuple[int, int] = (800, 800),
    stride: int = 100,
    jitter: int = 80,
) -> list[Patch | Centre]:
    """List the regions of an image of ``image_hw`` pixels that one epoch visits once each.

    The lists below give the total range of a crop's centre in pixels of the image (rows; columns):

    ``12fold``
        Twelve 800x800 patches with overlap (4.1.1): two rows of six, evenly spaced from border to
        border (the paper does not give the grid). With crops of 544: 288 at scale 0.5 (the patch
        is the smaller one, and whole inside the crop), 75 at 0.75, 256, 365 and 437 at 1 to 1.5.
    ``7fold``
        Seven centres at half the height and 1/8 ... 7/8 of the width (4.1.2: row 512, columns
        256 ... 1792 of 1024x2048); a crop's centre lies up to ``jitter`` from it: in 160x160
        pixels of the image, at every scale as in the release.
    ``grid``
        ``patch_hw`` patches every ``stride`` pixels (4.2), the last ones flush with the border.
        Where the crop is as large as the patch: 0 at scale 1, else the difference between the
        crop and its size in the image, e.g. 320, 107, 64 and 107 at 0.5, 0.75, 1.25 and 1.5 for
        320.
    ``stride``
        As ``grid``, but without the last row and column of patches that the stride does not reach:
        10 instead of 22 of a KITTI frame of 375x1242, whose lowest 55 rows are then outside every
        patch.
    ``image``
        The whole image, once: as a patch of its size.
    """
    height, width = image_hw
    if kind == "12fold":
        tops, lefts = _spaced(height, 800, 2), _spaced(width, 800, 6)
        return [Patch(top, left, 800, 800) for top in tops for left in lefts]
    if kind == "7fold":
        return [Centre(height // 2, width * k // 8, jitter) for k in range(1, 8)]
    if kind in ("grid", "stride"):
        tops, lefts = (
            _strided(length, side, stride, flush=kind == "grid")
            for length, side in zip(image_hw, patch_hw)
        )
        return [Patch(top, left, *patch_hw) for top in tops for left in lefts]
    if kind == "image":
        return [Patch(0, 0, height, width)]
    raise ValueError(f"patches {kind}: expected 12fold, 7fold, grid, stride or image")


def _spaced(length: int, side: int, count: int) -> list[int]:
    return np.linspace(0, max(length - side, 0), count).round().astype(int).tolist()


def _strided(length: int, side: int, stride: int, flush: bool) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, stride), last] if flush else [*range(0, last + 1, stride)]
