"""What predicting commands share: a run folder becomes a segmenter, images become label files."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import mxnet as mx
import numpy as np
from PIL import Image

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from configs.schema import Config
from data_iter.datasets import IMAGE_SUFFIXES
from data_iter.errors import DataError
from data_iter.image_files import read_label, read_size
from tools.inference.precision import is_bf16, require_bf16
from train.atomic import atomic_write
from train.machine import PROJECT
from train.network import build_symbol, check_params
from train.params import Params
from train.run_dir import RunDir
from train.segmenter import PixelSegmenter, Segmenter

# MXNet keeps four copies of its scratch memory unless told otherwise, 400 MB for a frame of
# Cityscapes; it reads this when it first computes, and prediction runs one layer at a time.
os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")
# Of what oneDNN prepares for an image size MXNet forgets nothing unless told how much to keep: half
# a megabyte for every new size. No operator that goes through this memory stands in one of our
# folded graphs so often that 16 would slow down images of one size.
os.environ.setdefault("MXNET_MKLDNN_CACHE_NUM", "16")

EMBEDDED = PROJECT / "models" / "camvid"  # the default run folder
OVERLAY_SHARE = 0.5  # of the class colours in an overlay
JPEG_QUALITY = 90
JPEG_SIDE = 65500  # pixels at most


@dataclass(frozen=True)
class RunParts:
    """What predicting and exporting need of a run folder.

    ``ready`` tells that ``symbol`` is a graph made for inference (int8 or bf16, ``quantize.py``)
    rather than the one that the configuration describes.
    """

    path: Path
    config: Config
    dataset: DatasetSpec
    symbol: mx.sym.Symbol
    arg_params: Params
    aux_params: Params
    ready: bool


def read_run(run_dir: Path, epoch: int | None = None) -> RunParts:
    """Read a run folder: the parameters after ``epoch`` epochs, or the newest.

    Raises
    ------
    RunError
        The folder is no run folder, has no such parameters, or they do not fit its network.
    """
    run = RunDir(run_dir)
    config, dataset = run.load()
    params = run.load_params(epoch)
    ready = run.is_for_inference()
    symbol = run.inference_graph() if ready else build_symbol(config, dataset)
    check_params(symbol, *params, run.path, config.network.downsample)
    return RunParts(run.path, config, dataset, symbol, *params, ready=ready)


def load_segmenter(
    run_dir: Path,
    epoch: int | None = None,
    context: mx.Context | None = None,
    backend: str = "mxnet",
) -> tuple[PixelSegmenter, DatasetSpec]:
    """Load the network of a run folder, and the classes that it knows.

    Parameters
    ----------
    run_dir : Path
        As ``train/train_model.py`` leaves it.
    epoch : int, optional
        Of the parameters; the newest by default.
    context : Context, optional
        Where MXNet runs; the CPU by default.
    backend : {"mxnet", "onnxruntime", "openvino"}
        The library that computes.

    Raises
    ------
    RunError
        The folder is no run folder, has no such parameters, or they do not fit its network; or it
        computes in bf16, which this processor cannot.
    ConfigError
        The backend is not installed.
    """
    if backend != "mxnet":
        require(backend)  # before the parameters are read
    run = read_run(run_dir, epoch)
    if backend != "mxnet":
        from tools.inference.backends import run_on

        return run_on(backend, run), run.dataset
    if run.ready and is_bf16(run.symbol):
        require_bf16()
    params = (run.arg_params, run.aux_params)
    segmenter = Segmenter(run.symbol, *params, run.config.network, context or mx.cpu())
    return segmenter, run.dataset


def require(library: str) -> ModuleType:
    """Import a library that is an extra of setup.py; ``ConfigError`` says how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"{library} cannot be loaded ({error}): pip install -e '.[{library}]'"
        ) from None


def find_images(path: Path, out: Path) -> list[Path]:
    """List the image ``path``, or the images in the folder ``path`` and below it, sorted.

    Left out are files below ``out``, where results go, and hidden ones: unfinished results, and
    what macOS lays beside files.

    Raises
    ------
    DataError
        There is none, or two of them, or an image and a result, would have the same name.
    """
    if path.is_file():
        images = [path]
    elif path.is_dir():
        files = sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES)
        results = out.resolve() if out.resolve() != path.resolve() else None
        images = [p for p in files if p.is_file() and results not in p.resolve().parents]
    else:
        raise DataError(f"{path}: no such image or folder")
    if not images:
        raise DataError(f"{path}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
    names: dict[str, Path] = {}
    for image in images:
        if image.stem in names:
            raise DataError(
                f"{names[image.stem]} and {image} would both be predicted as {image.stem}.png"
            )
        names[image.stem] = image
        if (out / f"{image.stem}.png").resolve() == image.resolve():
            raise DataError(f"{image}: its prediction would replace it; choose another --out")
    return images


def is_predicted(image: Path, prediction: Path) -> bool:
    """Whether ``prediction`` is a whole label file of the image's size."""
    try:
        return read_label(prediction).shape == read_size(image)
    except DataError:
        return False


def overlapped(
    items: Iterable[Any],
    read: Callable[[Any], Any],
    compute: Callable[[Any], Any],
    write: Callable[[Any, Any, Any], Any],
) -> Iterator[Any]:
    """Run ``write(item, value, compute(value))`` for ``value = read(item)`` of each item.

    While the network computes one item in the calling thread, the next is read and the last is
    written in threads of their own; no more than these three are in memory. Yields what ``write``
    returns, in order. The first exception of any of them ends it, after the writing under way.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        items = iter(items)
        writing = None
        item = next(items, None)
        reading = reader.submit(read, item)
        while item is not None:
            value = reading.result()
            following = next(items, None)
            if following is not None:
                reading = reader.submit(read, following)
            result = compute(value)
            if writing:
                yield writing.result()
            writing = writer.submit(write, item, value, result)
            item = following
        if writing:
            yield writing.result()


def write_labels(path: Path, labels: np.ndarray, dataset: DatasetSpec) -> None:
    """Write (H, W) uint8 train ids as an 8-bit palette PNG in the data set's colours."""
    picture = Image.fromarray(labels)
    picture.putpalette(dataset.palette.tobytes())
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")


def write_overlay(path: Path, image: np.ndarray, labels: np.ndarray, dataset: DatasetSpec) -> None:
    """Write the (H, W, 3) uint8 RGB image blended with its classes' colours as a JPEG.

    An image with a side of more pixels than a JPEG can have, 65500, is shown smaller.
    """
    factor = JPEG_SIDE / max(labels.shape)
    if factor < 1:
        wh = tuple(max(1, int(side * factor)) for side in labels.shape[::-1])
        image = cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, wh, interpolation=cv2.INTER_NEAREST)
    colours = dataset.palette[labels]
    blended = cv2.addWeighted(image, 1 - OVERLAY_SHARE, colours, OVERLAY_SHARE, 0)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", blended[:, :, ::-1], quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
