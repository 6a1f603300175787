"""Read one image or one label file; everything wrong with it is a ``DataError`` that names it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .errors import DataError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_TYPE = 25  # offset of IHDR's colour type: 0 grey, 2 RGB, 3 palette, 4 grey+alpha, 6 RGBA
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_image(path: Path) -> np.ndarray:
    """Decode an image as (H, W, 3) uint8, RGB, in the orientation in which its pixels are stored.

    An EXIF rotation is not applied, because the label file of the image would not follow it.
    """
    image = _decode(path, _read(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_label(path: Path) -> np.ndarray:
    """Decode a label file as (H, W) uint8, the values as stored: grey levels or palette indices."""
    encoded = _read(path)
    if encoded.startswith(JPEG_START):
        raise DataError(f"{path}: a label must be a PNG; JPEG compression changes its values")
    if (
        encoded.startswith(PNG_SIGNATURE)
        and encoded[PNG_COLOUR_TYPE : PNG_COLOUR_TYPE + 1] == b"\x03"
    ):
        try:  # OpenCV would turn the palette's indices into colours
            return np.array(Image.open(io.BytesIO(encoded)))
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: not a whole PNG file ({error})") from None
    label = _decode(path, encoded, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        found = f"{label.shape[2] if label.ndim == 3 else 1} channels of {label.dtype}"
        hint = "; is it a colour mask for viewing?" if label.ndim == 3 else ""
        raise DataError(f"{path}: found {found}, expected one channel of 8-bit class values{hint}")
    return label


def read_size(path: Path) -> tuple[int, int]:
    """Return ``(height, width)`` from the header alone."""
    try:
        with Image.open(path) as image:
            return image.size[1], image.size[0]
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(path: Path, encoded: bytes, flags: int) -> np.ndarray:
    # The JPEG decoder fills in what is missing without a word; its end marker tells.
    cut = encoded.startswith(JPEG_START) and JPEG_END not in encoded[-1024:]
    pixels = None
    if encoded and not cut:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if pixels is None:
        raise DataError(f"{path}: not a whole image file ({len(encoded)} bytes; truncated?)")
    return pixels
