"""Segment a film or a camera, frame by frame, into a film of overlays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from tools.inference.images import overlapped
from tools.inference.predictor import Predictor
from tools.shared.pictures import colours, overlay, write_labels
from train.errors import RunError
from train.legend import add_legend

CODECS = {"avc1": "H.264", "mp4v": "MPEG-4"}  # the first one that OpenCV's build has is used
RATE = 25.0  # frames per second of a film that does not state its rate


class Film:
    """An opened video file or camera.

    Raises
    ------
    DataError
        It cannot be opened, or not one frame can be read.
    """

    def __init__(self, source: Path | int):
        self.name = f"camera {source}" if isinstance(source, int) else str(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        self.first = self._read()
        if self.first is None:
            raise DataError(f"{self.name}: no frame can be read (no video, damaged, or no camera)")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else RATE
        # Of a camera, and of some files, the number is unknown.
        self.promised = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.frames = 0

    def frame(self, every: int) -> np.ndarray | None:
        """Return the next frame of each ``every``, (H, W, 3) uint8 RGB; None at the end."""
        picture, self.first = self.first, None
        if self.frames:
            for _ in range(every - 1):
                if not self._capture.grab():
                    return None
            picture = self._read()
        if picture is not None:
            self.frames += 1
        return picture

    def _read(self) -> np.ndarray | None:
        ok, picture = self._capture.read()
        return picture[:, :, ::-1] if ok else None

    def close(self) -> None:
        """Close the file or camera."""
        self._capture.release()


def film_results(source: Path | int, out: Path) -> tuple[Path, Path]:
    """Name the results of a video or camera in the folder ``out``: film, folder of label files."""
    name = f"camera{source}" if isinstance(source, int) else source.stem
    return out / f"{name}_overlay.mp4", out / f"{name}_labels"


def remove_labels(folder: Path) -> None:
    """Remove the frames' label files of an earlier call, which may have had more frames."""
    for file in folder.glob("*.png"):
        if file.stem.isdecimal():
            file.unlink()


def segment_film(
    film: Film,
    out: Path,
    network: Predictor,
    every: int = 1,
    labels_to: Path | None = None,
    legend: bool = False,
) -> Iterator[np.ndarray]:
    """Write a film of overlays while its frames are read and computed; yield pixels per class.

    At most three frames are in memory. Even after an error, the film so far is closed and can be
    played.

    Parameters
    ----------
    film : Film
        What to read.
    out : Path
        The film to write, ``.mp4``.
    network : Predictor
        What segments.
    every : int
        Use one frame of this many.
    labels_to : Path, optional
        Folder for the frames' label files, ``000000.png`` and so on.
    legend : bool
        Show names and colours of the classes below the picture.
    """
    with film_writer(out, film.rate / every) as append:

        def read(number: int) -> np.ndarray | None:
            return film.frame(every)

        def compute(picture: np.ndarray | None) -> np.ndarray | None:
            return None if picture is None else network.labels(picture)

        def write(number: int, picture: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
            if picture is None:
                return None
            if labels_to:
                write_labels(labels_to / f"{number:06d}.png", labels, network.dataset)
            append(draw(picture, labels, network.dataset, legend))
            return np.bincount(labels.ravel(), minlength=network.dataset.num_classes)

        for counts in overlapped(itertools.count(), read, compute, write):
            if counts is None:
                return
            yield counts


def draw(picture: np.ndarray, labels: np.ndarray, dataset: DatasetSpec, legend: bool) -> np.ndarray:
    """Blend a frame with its classes' colours, (H, W, 3) uint8 RGB."""
    blended = overlay(picture, colours(labels, dataset))
    return add_legend(blended, dataset) if legend else blended


@contextmanager
def film_writer(out: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends frames (H, W, 3) uint8 RGB; the film appears when closed.

    A frame of another size than the first one's is resized to it.

    Raises
    ------
    RunError
        OpenCV cannot write a film there.
    """
    temporary = out.with_name(f".{out.stem}.part.mp4")
    writer: cv2.VideoWriter | None = None
    size = (0, 0)

    def append(frame: np.ndarray) -> None:
        nonlocal writer, size
        if writer is None:
            size = (frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2)  # codecs want even sizes
            writer = _open(temporary, rate, size)
        if frame.shape[1::-1] != size:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))

    try:
        yield append
    finally:
        if writer is not None:
            writer.release()
            temporary.replace(out)


def _open(file: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    for codec, name in CODECS.items():
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), rate, size)
        if writer.isOpened():
            print(f"{file.parent}: film in {name}, {size[0]}x{size[1]}, {rate:.4g} a second")
            return writer
    raise RunError(f"{file}: OpenCV cannot write a film here")
