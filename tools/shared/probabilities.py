"""Probability maps on disk: what ``predict.py`` saves and CRF, search and submissions read.

``NAME.npz`` holds one array, ``probabilities``, (L, H, W) uint16, class by class in train-id order:
the probability times 65535, rounded, so each value is exact to 1 / 131070 (7.7e-6). zlib packs a
2048x1024 frame with 19 classes, 80 MB, to 50 MB at worst and far less where the network is sure.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from data_iter.errors import DataError
from train.atomic import atomic_write

PROBABILITY_SCALE = 65535


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """Round (L, H, W) floats of 0..1 to uint16, PROBABILITY_SCALE for 1."""
    quantised = np.empty(probabilities.shape, np.uint16)
    for plane, out in zip(probabilities, quantised):  # by class: a frame's floats are large
        np.rint(plane * np.float32(PROBABILITY_SCALE), out=out, casting="unsafe")
    return quantised


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write (L, H, W), floats of 0..1 or quantised; the file is there only when whole."""
    if probabilities.dtype != np.uint16:
        probabilities = quantise(probabilities)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=probabilities)


def read_probabilities(path: Path) -> np.ndarray:
    """Read (L, H, W) uint16, PROBABILITY_SCALE for 1; ``DataError`` where it is no such map."""
    try:
        with np.load(path) as archive:
            probabilities = archive["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a probability map ({error})") from None
    if probabilities.dtype != np.uint16 or probabilities.ndim != 3:
        raise DataError(
            f"{path}: found {probabilities.dtype} of {probabilities.ndim} axes, expected a "
            "probability map: uint16 (classes, height, width)"
        )
    return probabilities
