"""Probability maps on disk: ``predict.py`` saves them; CRF, search and submissions read them.

``NAME.npz`` holds one array, ``probabilities``, (L, H, W) uint16, class by class in train-id order:
the probability times 65535, rounded, so each value is exact to 1 / 131070 (7.7e-6). A 2048x1024
frame with 19 classes is 80 MB. zlib compresses it to 70 MB if the network is unsure, and to much
less if it is sure.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from data_iter.image_files import check_regular
from train.atomic import atomic_write

PROBABILITY_SCALE = 65535
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # flag of a zip's member
# What reading a damaged or hostile archive or array header raises.
NOT_A_MAP = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """Round (L, H, W) floats of 0..1 to uint16, PROBABILITY_SCALE for 1."""
    quantised = np.empty(probabilities.shape, np.uint16)
    for plane, out in zip(probabilities, quantised):  # class by class, to save memory
        np.rint(plane * np.float32(PROBABILITY_SCALE), out=out, casting="unsafe")
    return quantised


def pack(probabilities: np.ndarray) -> memoryview:
    """Return the file of (L, H, W), floats of 0..1 or quantised."""
    if probabilities.dtype != np.uint16:
        probabilities = quantise(probabilities)
    packed = io.BytesIO()  # in memory: on a full disk zipfile's clean-up would fail too
    np.savez_compressed(packed, probabilities=probabilities)
    return packed.getbuffer()


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write a map; see :func:`pack`. The file appears only when it is whole."""
    packed = pack(probabilities)
    with atomic_write(path) as temporary:
        temporary.write_bytes(packed)


def check_classes(path: Path, dataset: DatasetSpec) -> None:
    """Raise ``DataError`` if a map has not the number of classes of ``dataset``, or is none.

    Only its header is read.
    """
    with _opened(path) as (_, shape):
        classes = shape[0]
    _compare(path, classes, dataset)


def _compare(path: Path, classes: int, dataset: DatasetSpec) -> None:
    if classes != dataset.num_classes:
        raise DataError(
            f"{path}: it has {classes} classes, data set {dataset.name} {dataset.num_classes}"
        )


def read_probabilities(path: Path, dataset: DatasetSpec | None = None) -> np.ndarray:
    """Read (L, H, W) uint16, PROBABILITY_SCALE for 1.

    Raises
    ------
    DataError
        The file is not such a map, is damaged, or claims a size that it does not have. Its header
        is checked before memory is allocated, and its checksum at the end. Or it has not the
        number of classes of ``dataset``, where one is given.
    """
    with _opened(path) as (file, shape):
        probabilities = np.empty(shape, np.uint16)
        rest = memoryview(probabilities).cast("B")
        while count := file.readinto(rest):  # at the end the archive checks its checksum
            rest = rest[count:]
        if len(rest):
            raise EOFError("truncated")
    if dataset:
        _compare(path, len(probabilities), dataset)
    return probabilities


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """Yield a map's file, after its header, and its shape; any fault becomes a ``DataError``."""
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("probabilities.npy")
            if member.flag_bits & ENCRYPTED or member.compress_type not in COMPRESSIONS:
                raise ValueError("encrypted, or compressed in another way")
            with archive.open(member) as file:
                yield file, _read_shape(file, member.file_size)
    except NOT_A_MAP as error:
        raise DataError(f"{path}: cannot be read as a probability map ({error})") from None
    except MemoryError:
        raise DataError(f"{path}: the map does not fit into memory") from None


def _read_shape(file: IO[bytes], size: int) -> tuple[int, ...]:
    np.lib.format.read_magic(file)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.uint16 or len(shape) != 3 or fortran_order:
        raise ValueError(
            f"found {dtype} of {len(shape)} axes, expected uint16 (classes, height, width)"
        )
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"its {size} bytes are not an array {shape}")
    return shape
