"""One image through a segmenter several times: scales, mirror image, tiles.

The paper names no scales (section 4.1.4: "a single model"). The release's README has 79.1 on
Cityscapes' test set with a single scale and 80.1 with several.

Probabilities of all passes are averaged with equal weight at the image's own pixels. Tiles bound
the memory: only one is in the network at a time, and its kept part is at least half the overlap
away from the tile's edges. If that is at least the network's receptive radius, the result equals
that of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from configs.errors import ConfigError
from train.segmenter import PixelSegmenter, most_probable

# Tiles begin at multiples of this: a multiple of the downsampling rate at every scale that is a
# multiple of 1/4, so that a tile's features sample the image where the whole image's do.
TILE_STEP = 32
Span = tuple[slice, slice]  # rows and columns


class Averager:
    """Segments with several passes per image.

    Parameters
    ----------
    segmenter : PixelSegmenter
        What runs the network.
    scales : sequence of float
        Sizes relative to the image's at which the network sees it.
    flip : bool
        Also use the mirror image at every scale.
    tile_hw : tuple of int, optional
        Cut the image into tiles of at most this height and width (mirrored: up to 31 columns more).
    overlap : int, optional
        Pixels that neighbouring tiles share; by default the smaller of twice the receptive radius
        and half a tile.

    Raises
    ------
    ConfigError
        A scale is not positive; tile or overlap is not a multiple of ``TILE_STEP``; or the overlap
        is too large for the tile.
    """

    def __init__(
        self,
        segmenter: PixelSegmenter,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile_hw: tuple[int, int] | None = None,
        overlap: int | None = None,
    ):
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ConfigError(f"--scales: expected numbers above 0, found {list(scales)}")
        self.radius = math.ceil(segmenter.receptive_radius / min(scales))
        if tile_hw and overlap is None:
            wanted = -(-2 * self.radius // TILE_STEP) * TILE_STEP
            overlap = min(wanted, min(tile_hw) // 2 // TILE_STEP * TILE_STEP)
        if tile_hw:
            check_tiles(tile_hw, overlap)
        self.segmenter, self.scales, self.flip = segmenter, tuple(scales), flip
        self.tile_hw, self.overlap = tile_hw, overlap

    @property
    def exact(self) -> bool:
        """Whether tiles give the result of the whole image, except for rounding."""
        in_step = all(4 * scale % 1 == 0 for scale in self.scales)
        return self.tile_hw is None or (in_step and self.overlap >= 2 * self.radius)

    def labels(self, image: np.ndarray, factor: float = 1.0) -> np.ndarray:
        """Return (H, W) uint8 train ids of an (H, W, 3) uint8 RGB image.

        Every scale is multiplied by ``factor``, which belongs to this image.
        """
        scales = [scale * factor for scale in self.scales]
        if self.tile_hw is None:
            return self._labels(image, whole(image), scales)
        labels = np.empty(image.shape[:2], np.uint8)
        for tile, inner, outer in self._tiles(image.shape[:2]):
            labels[outer] = self._labels(image, tile, scales)[inner]
        return labels

    def probabilities(self, image: np.ndarray, factor: float = 1.0) -> np.ndarray:
        """Return (L, H, W) float32 that sum to 1 over L; ``factor`` as for :meth:`labels`."""
        scales = [scale * factor for scale in self.scales]
        if self.tile_hw is None:
            return self._probabilities(image, whole(image), scales)
        result = None
        for tile, inner, outer in self._tiles(image.shape[:2]):
            piece = self._probabilities(image, tile, scales)
            if result is None:
                result = np.empty((len(piece), *image.shape[:2]), np.float32)
            result[(slice(None), *outer)] = piece[(slice(None), *inner)]
        return result

    def _labels(self, image: np.ndarray, tile: Span, scales: list[float]) -> np.ndarray:
        if scales == [1.0] and not self.flip:
            return self.segmenter.labels(image[tile])
        return most_probable(self._probabilities(image, tile, scales))

    def _probabilities(self, image: np.ndarray, tile: Span, scales: list[float]) -> np.ndarray:
        if scales == [1.0] and not self.flip:
            return self.segmenter.probabilities(image[tile])
        hw = image[tile].shape[:2]
        total = None
        for mirrored in (False, True) if self.flip else (False,):
            seen = mirror(image, tile) if mirrored else image[tile]
            for scale in scales:
                cells = self.segmenter.cell_probabilities(resize(seen, scale))
                if total is None:
                    total = np.zeros((len(cells), *hw), np.float32)
                planes = self.segmenter.at_pixels(cells, seen.shape[:2], scale)
                for plane, pixels in zip(total, planes):
                    plane += pixels[:, ::-1][:, : hw[1]] if mirrored else pixels
        total /= len(scales) * (1 + self.flip)
        return total

    def _tiles(self, hw: tuple[int, int]) -> Iterator[tuple[Span, Span, Span]]:
        """A tile of an image: its place, its kept part, and the place of that part."""
        rows, columns = (
            spans(length, tile, self.overlap) for length, tile in zip(hw, self.tile_hw)
        )
        for row in rows:
            for column in columns:
                yield tuple(zip(row, column))


def whole(image: np.ndarray) -> Span:
    """Return the single tile of an uncut image."""
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def mirror(image: np.ndarray, tile: Span) -> np.ndarray:
    """Return the mirror image of a tile, with up to ``TILE_STEP - 1`` more columns at its left.

    The features of the mirrored whole image begin at the image's right edge. With these columns a
    tile's features have the same positions, for every width of the image.
    """
    rows, columns = tile
    more = (image.shape[1] - columns.stop) % TILE_STEP
    return image[rows, columns.start : columns.stop + more][:, ::-1]


def spans(length: int, tile: int, overlap: int) -> list[tuple[slice, slice, slice]]:
    """Cut one axis into tiles.

    Returns
    -------
    list of three slices
        The tile along the axis; its kept part within the tile; the kept part along the axis. The
        kept parts cover the axis once and meet in the middle of each overlap.
    """
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + tile - overlap)
    cuts = [0, *(start + overlap // 2 for start in starts[1:]), length]
    return [
        (
            slice(start, min(start + tile, length)),
            slice(first - start, last - start),
            slice(first, last),
        )
        for start, first, last in zip(starts, cuts, cuts[1:])
    ]


def check_tiles(tile_hw: tuple[int, int], overlap: int) -> None:
    """Raise ``ConfigError`` for sizes of tiles and overlap that do not work."""
    for option, value in (("--tile", tile_hw[0]), ("--tile", tile_hw[1]), ("--overlap", overlap)):
        if value % TILE_STEP or value < 0:
            raise ConfigError(f"{option}: expected multiples of {TILE_STEP}, found {value}")
    if overlap >= min(tile_hw):
        raise ConfigError(
            f"--overlap {overlap} leaves nothing of a tile of {tile_hw[0]}x{tile_hw[1]} pixels"
        )


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize (H, W, 3) by ``scale`` bilinearly, as training does, to at least one pixel."""
    if scale == 1:
        return image
    if min(round(side * scale) for side in image.shape[:2]) < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    # With the factor, not a rounded size, a tile is sampled exactly as the whole image is.
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
