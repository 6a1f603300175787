"""Sources of pixels: a data set's own files, decoded frames in memory, or a prepared folder.

All three are :class:`Frames`, give the same pixels, and are safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .datasets import LAYOUTS, find_samples
from .errors import DataError
from .image_files import exif_orientation, read_bgr, read_size
from .records import RecordFrames, is_prepared
from .sample import Sample

ALL = slice(None)


class Frames(Protocol):
    """Images and their labels, by number; the order is that of the names."""

    def __len__(self) -> int:
        """Count the frames."""

    def name(self, number: int) -> str:
        """Say where a frame comes from, for messages."""

    def key(self, number: int) -> str:
        """Return a frame's name; it depends neither on the data set's folder nor on the mode."""

    def hw(self, number: int) -> tuple[int, int]:
        """Return (height, width); ``DataError`` where the file cannot be read."""

    def read(
        self, number: int, rows: slice = ALL, columns: slice = ALL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a region: image (h, w, 3) uint8 BGR, label (h, w) uint8 as stored (not train ids).

        Callers must not write into the arrays. ``DataError`` names an unusable file.
        """

    def read_label(self, number: int) -> np.ndarray:
        """Return a whole label, (h, w) uint8 as stored, without decoding the image."""


def open_frames(
    layout: str, root: Path, split: str, home: str = "", cache_mb: int = 0, labelled: bool = True
) -> Frames:
    """Open a split of a data set's official folder, or of a folder that prepare_data.py packed.

    Parameters
    ----------
    layout, root, split, home, labelled
        As for :func:`data_iter.datasets.find_samples`.
    cache_mb : int
        Keep decoded frames in memory up to this many MB (2**20 bytes); 0: none.
    """
    frames: Frames
    if is_prepared(root):
        frames = RecordFrames(root, split)
    else:
        samples = find_samples(layout, root, split, home, labelled)
        frames = FileFrames(samples, LAYOUTS[layout].read_label)
    return CachedFrames(frames, cache_mb << 20) if cache_mb else frames


class FileFrames:
    """The files themselves (direct mode): a read decodes the rows of the region.

    Sizes are read once; a frame's first read takes its label whole, to compare it with the image.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        read_label: Callable[..., np.ndarray] = LAYOUTS["folders"].read_label,
    ):
        self._samples = samples
        self._read_label = read_label
        self._hw: dict[int, tuple[int, int]] = {}
        self._compared: set[int] = set()

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, number: int) -> str:
        """Say where a frame comes from."""
        return str(self._samples[number].label)

    def key(self, number: int) -> str:
        """Return a frame's name."""
        return self._samples[number].name

    def hw(self, number: int) -> tuple[int, int]:
        """Return (height, width)."""
        if number not in self._hw:
            self._hw[number] = read_size(self._samples[number].image)
        return self._hw[number]

    def read(
        self, number: int, rows: slice = ALL, columns: slice = ALL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a region as (image BGR, label)."""
        sample = self._samples[number]
        if number in self._compared:
            label = self._read_label(sample.label, rows)
        else:
            label = self.read_label(number)[rows]
        height, width = self.hw(number)
        part = (len(range(*rows.indices(height))), width)
        if read_size(sample.image) != (height, width) or label.shape != part:
            raise DataError(
                f"{sample.image} and its label {sample.label}: one of them is no longer "
                f"{width}x{height}, as it was when this job began"
            )
        image = read_bgr(sample.image, rows)
        return image[:, columns], label[:, columns]

    def read_label(self, number: int) -> np.ndarray:
        """Return a whole label, of its image's size."""
        sample = self._samples[number]
        if sample.label is None:
            raise DataError(f"{sample.image}: the image has no label")
        label, hw = self._read_label(sample.label), self.hw(number)
        if label.shape != hw:
            raise DataError(_other_size(sample, label.shape, hw))
        self._compared.add(number)
        return label

    def read_bgr(self, number: int) -> np.ndarray:
        """Return a whole image without its label; a test split has no labels."""
        return read_bgr(self._samples[number].image)


class CachedFrames:
    """Keeps the first decoded frames of another source in memory, up to ``limit`` bytes.

    Nothing is ever evicted: every epoch visits every frame equally often in a random order, so no
    frame is worth more than another.
    """

    def __init__(self, frames: Frames, limit: int):
        self._frames = frames
        self._free = limit
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, number: int) -> str:
        """Say where a frame comes from."""
        return self._frames.name(number)

    def key(self, number: int) -> str:
        """Return a frame's name."""
        return self._frames.key(number)

    def hw(self, number: int) -> tuple[int, int]:
        """Return (height, width)."""
        return self._frames.hw(number)

    def read(
        self, number: int, rows: slice = ALL, columns: slice = ALL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a region as (image BGR, label)."""
        kept = self._kept.get(number)
        if kept is None:
            height, width = self.hw(number)
            if height * width * 4 > self._free:
                return self._frames.read(number, rows, columns)
            kept = self._frames.read(number)
            with self._lock:
                size = kept[0].nbytes + kept[1].nbytes
                if number not in self._kept and size <= self._free:
                    self._kept[number] = kept
                    self._free -= size
        image, label = kept
        return image[rows, columns], label[rows, columns]

    def read_label(self, number: int) -> np.ndarray:
        """Return a whole label."""
        kept = self._kept.get(number)
        return self._frames.read_label(number) if kept is None else kept[1]


def _other_size(sample: Sample, label_hw: tuple[int, ...], image_hw: tuple[int, ...]) -> str:
    hint = ""
    if label_hw == image_hw[::-1]:
        orientation = exif_orientation(sample.image)
        hint = "; was one of the two rotated?"
        if orientation != 1:
            hint = (
                f"; the image carries an EXIF rotation (orientation {orientation}): save it upright"
            )
    return (
        f"{sample.label}: the label is {label_hw[1]}x{label_hw[0]}, "
        f"its image {image_hw[1]}x{image_hw[0]} (width x height){hint}"
    )
