"""Fully connected CRF: sharpen a prediction by the image's colours (paper, section 4.1.2).

The energy is that of DeepLab (the paper's [3]): unary -log p, and for every pair of pixels i, j
with different labels

    w1 exp(-|p_i - p_j|^2 / (2 sigma_alpha^2) - |I_i - I_j|^2 / (2 sigma_beta^2))
    + w2 exp(-|p_i - p_j|^2 / (2 sigma_gamma^2))

where p is a pixel's place and I its RGB colour, minimised by mean field (Kraehenbuehl and Koltun,
2011) in pydensecrf. Two things make it cheaper than a plain call with the same labels. Classes that
occur nowhere are left out. Pixels are ordered block by block, so that the lattice of neighbours
stays in the processor's cache. Every iteration is computed: the number of labels that one iteration
changes does not predict the next, and on a noisy frame the ninth still changes 5 labels in 10,000.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from pydensecrf.densecrf import DenseCRF

from configs.datasets import DatasetSpec
from configs.schema import Crf
from data_iter.errors import DataError
from data_iter.image_files import read_image, read_size
from tools.inference.files import list_images
from tools.shared.pairs import files, index
from tools.shared.probabilities import PROBABILITY_SCALE, check_classes, read_probabilities
from train.machine import allowed_cores

PRESENT = 0.05  # a class whose highest probability is below this is left out
SMALLEST = 1e-5  # probabilities are clipped to it before the logarithm (pydensecrf's default)
BLOCK = 64  # pixels: side of the blocks in which pixels are ordered
PIXEL_BYTES, CLASS_BYTES = 500, 60  # of memory per pixel, and per pixel and class; measured


class Frame(NamedTuple):
    """An image and its probability map."""

    name: str
    image: Path
    probabilities: Path


def refine(image: np.ndarray, probabilities: np.ndarray, crf: Crf) -> np.ndarray:
    """Label every pixel by a CRF.

    Parameters
    ----------
    image : ndarray
        (H, W, 3) uint8, RGB.
    probabilities : ndarray
        (L, H, W): float of 0..1, or uint16 as :mod:`tools.shared.probabilities` stores them.
    crf : Crf
        The parameters.

    Returns
    -------
    ndarray
        (H, W) uint8 train ids.
    """
    scale = PROBABILITY_SCALE if probabilities.dtype == np.uint16 else 1
    peaks = probabilities.max(axis=(1, 2))
    present = np.flatnonzero(peaks >= PRESENT * peaks.max())
    if len(present) == 1:
        return np.full(image.shape[:2], present[0], np.uint8)
    order = block_order(image.shape[:2])
    unary = np.empty((len(present), len(order)), np.float32)
    for row, train_id in zip(unary, present):
        np.divide(probabilities[train_id].ravel()[order], scale, out=row, casting="unsafe")
    np.log(np.maximum(unary, SMALLEST, out=unary), out=unary)
    np.negative(unary, out=unary)

    model = DenseCRF(len(order), len(present))
    model.setUnaryEnergy(unary)
    del unary  # the model has its own copy
    rows, columns = np.divmod(order, image.shape[1])
    place = np.stack([columns, rows]).astype(np.float32)
    colour = image.reshape(-1, 3)[order].T.astype(np.float32)
    model.addPairwiseEnergy(place / np.float32(crf.sigma_gamma), compat=crf.w2)
    features = np.concatenate(
        [place / np.float32(crf.sigma_alpha), colour / np.float32(crf.sigma_beta)]
    )
    model.addPairwiseEnergy(features, compat=crf.w1)
    del rows, columns, place, colour, features
    labels = np.empty(len(order), np.uint8)
    labels[order] = present[np.asarray(model.inference(crf.iterations)).argmax(axis=0)]
    return labels.reshape(image.shape[:2])


def block_order(hw: tuple[int, int]) -> np.ndarray:
    """List the H * W pixel numbers block by block; the last blocks may be smaller."""
    numbers = np.arange(hw[0] * hw[1]).reshape(hw)
    blocks = [
        numbers[y : y + BLOCK, x : x + BLOCK].ravel()
        for y in range(0, hw[0], BLOCK)
        for x in range(0, hw[1], BLOCK)
    ]
    return np.concatenate(blocks)


def find_frames(images: Path, probabilities: Path, dataset: DatasetSpec, out: Path) -> list[Frame]:
    """Pair the probability maps in a folder with the images in another and below it, by name.

    Results lie in ``probabilities`` (label files beside the maps) and ``out``: where these are
    folders below ``images``, nothing in them is an image.

    Raises ``DataError`` if there is no map, a map has no image, or the class table has another
    number of classes than a map.
    """
    maps = index(files(probabilities, "*.npz"), lambda file: file.stem)
    if not maps:
        raise DataError(f"{probabilities}: no probability maps (*.npz) in it")
    found = index(list_images(images, probabilities, out)[0], lambda file: file.stem)
    for name, file in maps.items():
        if name not in found:
            raise DataError(f"{file}: there is no image {name}.* in {images}")
        check_classes(file, dataset)
    return [Frame(name, found[name], maps[name]) for name in sorted(maps)]


@functools.lru_cache(maxsize=1)  # a search refines the same frame again and again
def read_frame(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Read image (H, W, 3) uint8 and probabilities (L, H, W) uint16; their sizes must agree."""
    image, probabilities = read_image(frame.image), read_probabilities(frame.probabilities)
    if probabilities.shape[1:] != image.shape[:2]:
        raise DataError(
            f"{frame.probabilities}: the map is {probabilities.shape[2]}x{probabilities.shape[1]}, "
            f"its image {image.shape[1]}x{image.shape[0]} (width x height)"
        )
    return image, probabilities


def refine_frame(frame: Frame, crf: Crf) -> np.ndarray:
    """Label the pixels of a frame's files; see :func:`refine`."""
    return refine(*read_frame(frame), crf)


def affordable_jobs(images: list[Path], classes: int) -> int:
    """Number of images of the largest size that cores and free memory allow at the same time."""
    pixels = max(height * width for height, width in map(read_size, images))
    free = psutil.virtual_memory().available
    return max(1, min(allowed_cores(), free // (pixels * (PIXEL_BYTES + CLASS_BYTES * classes))))
