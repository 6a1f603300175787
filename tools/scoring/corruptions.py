"""Damage images as other cameras, weather and compression do, to measure how robust a network is.

Six of the kinds of Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations" (ICLR 2019), at one strength each: pure functions of an (H, W, 3)
uint8 image and a generator. The image keeps its size, so its label file fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np

FACTORS = (0.6, 1.4)  # factors of brightness and contrast, each with probability 1/2
BLUR = 1.5  # pixels, standard deviation
NOISE = 15.0  # of 0..255, standard deviation
JPEG_QUALITY = 15
SHRINK = 0.5  # of height and width


def brightness(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Multiply all values by one of ``FACTORS``."""
    return _to_bytes(image * random.choice(FACTORS))


def contrast(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Multiply the distance from the image's mean value by one of ``FACTORS``."""
    mean = image.mean()
    return _to_bytes(mean + (image - mean) * random.choice(FACTORS))


def blur(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian kernel."""
    return cv2.GaussianBlur(image, (0, 0), BLUR)


def noise(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise, drawn for each value."""
    return _to_bytes(image + random.normal(0, NOISE, image.shape))


def jpeg(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Compress as a JPEG of low quality (the channels may be in either order)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imdecode(cv2.imencode(".jpg", image, options)[1], cv2.IMREAD_COLOR)


def scale(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shrink by area and enlarge linearly: a camera of half the resolution."""
    height, width = image.shape[:2]
    small_wh = (max(1, round(width * SHRINK)), max(1, round(height * SHRINK)))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    function.__name__: function for function in (brightness, contrast, blur, noise, jpeg, scale)
}


def corrupt(image: np.ndarray, kind: str, name: str, seed: int) -> np.ndarray:
    """Damage an image; random values depend on ``kind``, ``seed`` and the image's ``name`` only."""
    random = np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in (kind, name))])
    return CORRUPTIONS[kind](image, random)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
