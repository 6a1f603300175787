"""Compare the batch-norm statistics of weights with those of photographs, or replace them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
from rich.console import Console
from rich.progress import track

from configs.errors import ConfigError
from configs.schema import Config
from data_iter.errors import DataError
from data_iter.image_files import read_image
from data_iter.listing import IMAGE_SUFFIXES, list_files
from train.errors import RunError
from train.network import HEAD, param_shapes
from train.params import Params
from train.statistics import MEAN, VARIANCE, Statistics, stored

SHORTER, SIDE = 256, 224  # an image's shorter side, and its central square, as usual for ImageNet
BATCH = 8


def find_photographs(folder: Path, count: int) -> list[Path]:
    """List at most ``count`` images in a folder and below it, evenly spread over their names.

    Raises
    ------
    ConfigError, DataError
        The count is below 1; there is none.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: expected 1 or more")
    files = list_files(folder, "**/*", IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{folder}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
    return [files[len(files) * n // count] for n in range(count)] if len(files) > count else files


def read_photographs(files: list[Path], config: Config) -> Iterator[np.ndarray]:
    """Read images as batches (N, 3, 224, 224) float32, RGB minus ``network.mean_rgb``."""
    console = Console(file=sys.stderr, markup=False)
    batch = []
    for file in track(
        files, "measuring", console=console, transient=True, disable=not console.is_terminal
    ):
        image = read_image(file)
        scale = SHORTER / min(image.shape[:2])
        height, width = (max(SIDE, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        square = image[top : top + SIDE, left : left + SIDE].astype(np.float32)
        batch.append((square - np.array(config.network.mean_rgb, np.float32)).transpose(2, 0, 1))
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def check_backbone(
    symbol: mx.sym.Symbol, params: tuple[Params, Params], file: Path, side: int
) -> None:
    """Raise ``RunError`` if a backbone's parameters do not fit ``symbol``."""
    arguments, states = param_shapes(symbol, side)
    found = params[0] | params[1]
    for name, shape in (arguments | states).items():
        if not name.startswith(HEAD) and (name not in found or found[name].shape != shape):
            here = f"is {found[name].shape}" if name in found else "is missing"
            raise RunError(
                f"{file}: {name} {here}, the network has {shape}; give the options that belong to "
                "the weights with --set"
            )


def recalibrate(params: tuple[Params, Params], measured: Statistics, eps: float) -> None:
    """Give batch norms the measured statistics, and change gamma and beta to keep the function.

    ``gamma (x - m) / sqrt(v + eps) + beta`` stays the same for every x where
    ``gamma' = gamma sqrt(v' + eps) / sqrt(v + eps)`` and
    ``beta' = beta + gamma (m' - m) / sqrt(v + eps)``. Both dicts are changed in place.
    """
    args, auxs = params
    old = stored(auxs)
    for name, (new_mean, new_variance) in measured.items():
        mean, variance = old[name]
        gamma, beta = (args[f"{name}/bn_{kind}"].asnumpy() for kind in ("gamma", "beta"))
        slope = gamma / np.sqrt(variance + np.float64(eps))
        new = {
            f"{name}/bn_gamma": slope * np.sqrt(new_variance + eps),
            f"{name}/bn_beta": beta + slope * (new_mean - mean),
        }
        args.update({key: mx.nd.array(value) for key, value in new.items()})
        auxs[name + MEAN], auxs[name + VARIANCE] = mx.nd.array(new_mean), mx.nd.array(new_variance)
