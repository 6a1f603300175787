"""The documented way to predict from Python; the commands use it too.

from tools.inference.predictor import load

network = load("runs/duc_hdc")
labels = network.labels("street.png")              # (H, W) uint8 train ids
names = [row.name for row in network.classes]
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import train.runtime  # noqa: F401  # isort: skip  # sets threads before MXNet loads

import mxnet as mx
import numpy as np
from PIL import Image

from configs.datasets import ClassSpec
from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.image_files import read_image
from tools.inference.averaging import Averager
from tools.inference.backends import open_segmenter, read_model
from tools.inference.run import Description
from tools.shared.options import EMBEDDED
from tools.shared.pictures import colours, overlay
from train.segmenter import PixelSegmenter

Picture = Union[np.ndarray, str, Path, Image.Image]
NEAR = 1.5  # factor between image and training size up to which an image stays as it is


class Predictor:
    """A trained network that segments images of any size.

    Images are (H, W, 3) uint8 RGB arrays, files, or Pillow images. Several threads may call one
    predictor: the network computes one image at a time, and each call gets its own result. There
    are no batches, since one image already uses every core: four images of 480x360 took the
    embedded network 0.83 s of CPU time one by one, and 0.82 s as one batch.

    Parameters
    ----------
    segmenter : PixelSegmenter
        What runs the network.
    description : Description
        The run's configuration, class table and training size.
    scales : sequence of float
        Sizes, relative to the image's, to average over.
    flip : bool
        Average with the mirror image too.
    tile_hw, overlap
        See :class:`tools.inference.averaging.Averager`.
    long_side : int or "auto", optional
        Length in pixels of the longer side at which the network sees an image; results have the
        image's own size. ``auto``: the training images' length, if the image is more than 1.5 times
        as long or as short. None: the image's own length.
    """

    def __init__(
        self,
        segmenter: PixelSegmenter,
        description: Description,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile_hw: tuple[int, int] | None = None,
        overlap: int | None = None,
        long_side: int | str | None = None,
    ):
        if isinstance(long_side, int) and tile_hw:
            raise ConfigError("--long-side and --tile: give one of them")
        self.averager = Averager(segmenter, scales, flip, tile_hw, overlap)
        self.segmenter, self.config = segmenter, description.config
        self.dataset = description.dataset
        self.trained_long_side = description.long_side
        self._long_side = None if tile_hw else long_side
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The classes in the order of train ids, each with ``name`` and ``color``."""
        return self.dataset.train_classes

    def labels(self, image: Picture) -> np.ndarray:
        """Return the most probable class of each pixel, (H, W) uint8 train ids."""
        pixels = as_array(image)
        with self._lock:
            return self.averager.labels(pixels, self.factor(pixels))

    def probabilities(self, image: Picture) -> np.ndarray:
        """Return (L, H, W) float32 in 0..1 that sum to 1 over the L classes."""
        pixels = as_array(image)
        with self._lock:
            return self.averager.probabilities(pixels, self.factor(pixels))

    def overlay(self, image: Picture) -> np.ndarray:
        """Return the image blended with its classes' colours, (H, W, 3) uint8 RGB."""
        pixels = as_array(image)
        return overlay(pixels, colours(self.labels(pixels), self.dataset))

    def factor(self, image: np.ndarray) -> float:
        """Return the factor by which an image is resized before the network sees it."""
        length = max(image.shape[:2])
        if self._long_side == "auto":
            wanted = self.trained_long_side or length
            return 1.0 if 1 / NEAR <= length / wanted <= NEAR else wanted / length
        return (self._long_side or length) / length


def load(
    model: str | Path = EMBEDDED,
    *,
    epoch: int | str = "last",
    backend: str | None = None,
    threads: int | None = None,
    context: mx.Context | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile_hw: tuple[int, int] | None = None,
    overlap: int | None = None,
    long_side: int | str | None = "auto",
) -> Predictor:
    """Load a trained network.

    Parameters
    ----------
    model : str or Path
        A run folder, or an ONNX file of ``tools/export_onnx.py``; the embedded network by default.
    epoch : int, "last" or "best"
        Of a run folder's parameters; ``best`` had the highest mIoU in validation.
    backend : {"mxnet", "onnxruntime", "openvino"}, optional
        The library that computes: by default MXNet for a run folder, ONNX Runtime for an ONNX file.
    threads : int, optional
        Of ONNX Runtime or OpenVINO; every core that the process may use by default. MXNet reads
        ``OMP_NUM_THREADS`` once, when the process starts.
    context : Context, optional
        Where MXNet runs; the CPU by default.
    scales, flip, tile_hw, overlap, long_side
        See :class:`Predictor`.

    Raises
    ------
    RunError
        ``model`` is neither of these, or is incomplete.
    ConfigError
        The backend is not installed, or an option has a wrong value.
    """
    segmenter, description = open_segmenter(
        read_model(Path(model), epoch, backend), backend, threads, context
    )
    return Predictor(segmenter, description, scales, flip, tile_hw, overlap, long_side)


def as_array(image: Picture) -> np.ndarray:
    """Return an image as (H, W, 3) uint8 RGB; ``DataError`` if it is not one."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(
            f"an image of {image.dtype}, shape {image.shape}: expected uint8, (height, width, 3)"
        )
    return image
