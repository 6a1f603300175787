"""One image through a segmenter several times: scales, mirror image, tiles.

The paper names no scales (section 4.1.4: "a single model"). The release's README has 79.1 on
Cityscapes' test set with a single scale and 80.1 with several.

Probabilities of all passes are averaged with equal weight at the image's own pixels. Tiles bound
the memory: only one is in the network at a time, and what is kept of it lies half the overlap or
more from the tile's own edges. Where that is at least the network's receptive radius, the result is
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
    """Segments with several passes an image.

    Parameters
    ----------
    segmenter : PixelSegmenter
        What runs the network.
    scales : sequence of float
        Sizes relative to the image's at which the network sees it.
    flip : bool
        Also see the mirror image at every scale.
    tile_hw : tuple of int, optional
        See the image in tiles of at most this height and width (mirrored, up to 31 columns more).
    overlap : int, optional
        Pixels that neighbouring tiles share; twice the receptive radius by default, or half a tile
        where that is less.

    Raises
    ------
    ConfigError
        A scale is not positive; tile or overlap is no multiple of ``TILE_STEP``, or they do not
        fit each other.
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
        """Whether tiles give what the whole image gives, rounding aside."""
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
        """Tiles of an image: where each lies, what of it is kept, and where that lies."""
        rows, columns = (
            spans(length, tile, self.overlap) for length, tile in zip(hw, self.tile_hw)
        )
        for row in rows:
            for column in columns:
                yield tuple(zip(row, column))


def whole(image: np.ndarray) -> Span:
    """Return the only tile of an image that is not cut."""
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def mirror(image: np.ndarray, tile: Span) -> np.ndarray:
    """Return the mirror image of a tile, with up to ``TILE_STEP - 1`` more columns at its left.

    The mirrored whole image's features begin at the image's right edge. With these columns a tile's
    lie where those do, whatever the image's width.
    """
    rows, columns = tile
    more = (image.shape[1] - columns.stop) % TILE_STEP
    return image[rows, columns.start : columns.stop + more][:, ::-1]


def spans(length: int, tile: int, overlap: int) -> list[tuple[slice, slice, slice]]:
    """Cut one axis into tiles.

    Returns
    -------
    list of three slices
        The tile along the axis; within the tile, what is kept; where that lies along the axis. The
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
    """Raise ``ConfigError`` for tiles that cannot be laid out."""
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
    # Given the factor instead of a rounded size, a tile is sampled just as the whole image is.
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
