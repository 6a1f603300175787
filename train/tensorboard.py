"""TensorBoard event files of a run: its curves, and its predictions for a few validation images."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

PICTURES = 3  # validation images shown each epoch
PICTURE_HEIGHT = 256  # largest height in pixels: event files grow with every epoch


class Board:
    """Writes to the folder ``tensorboard`` of a run.

    tensorboardX's own SummaryWriter writes in a thread behind a bounded queue: on a full disk the
    thread dies and training would wait for ever. This one writes at once, and raises ``OSError``.

    Parameters
    ----------
    run : Path
        The run folder.
    iteration : int
        First iteration of this start; TensorBoard hides later records of an interrupted run.
    """

    def __init__(self, run: Path, iteration: int):
        folder = run / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{iteration}.{os.getpid()}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(iteration + 1, session_log=start)

    def scalars(self, iteration: int, values: dict[str, float]) -> None:
        """Add a point to the curve of each name."""
        for name, value in values.items():
            self._write(iteration, summary=summary.scalar(name, value))
        self._writer.flush()

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        """Add a picture (H, W, 3) uint8 RGB."""
        self._write(iteration, summary=summary.image(name, picture, dataformats="HWC"))

    def close(self) -> None:
        """Write pending records."""
        self._writer.close()

    def _write(self, iteration: int, **content: object) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=iteration, **content)
        self._writer.write_event(event)


def strip(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, palette: np.ndarray
) -> np.ndarray:
    """Put an image, its label and the prediction side by side.

    Parameters
    ----------
    image : ndarray
        (H, W, 3) uint8 RGB.
    truth, predicted : ndarray
        (H, W) uint8 train ids.
    palette : ndarray
        (256, 3) uint8 RGB by train id.

    Returns
    -------
    ndarray
        (h, 3 * w, 3) uint8 RGB, no higher than `PICTURE_HEIGHT`.
    """
    height, width = truth.shape
    share = min(1.0, PICTURE_HEIGHT / height)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    parts = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)]
    parts += [
        palette[cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)]
        for labels in (truth, predicted)
    ]
    return np.concatenate(parts, axis=1)
