"""Read one image or one label file; everything wrong with it is a ``DataError`` that names it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .errors import DataError
from .png_rows import SIGNATURE as PNG_SIGNATURE
from .png_rows import cut_rows

PNG_DEPTH, PNG_COLOUR_TYPE = 24, 25  # offsets in the file of two bytes of IHDR
GREY, PALETTE = 0, 3  # PNG colour types
JPEG_SIGNATURE = b"\xff\xd8"
END_MARKS = {PNG_SIGNATURE: b"IEND", JPEG_SIGNATURE: b"\xff\xd9"}
EXIF_ORIENTATION = 0x0112
# Pillow takes images of more than 179 million pixels for an attack. OpenCV, which decodes most of
# what is read here, allows this many.
Image.MAX_IMAGE_PIXELS = 1 << 30
# What Pillow raises: no such file or no image, a broken chunk, one too short, a size beyond reason.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path) -> np.ndarray:
    """Decode an image as (H, W, 3) uint8, RGB, in the orientation in which its pixels are stored.

    An EXIF rotation is not applied, because the label file of the image would not follow it.
    """
    image = read_bgr(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_bgr(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """As :func:`read_image`, in OpenCV's own channel order: one pass over the image less.

    Of a PNG only the ``rows`` that are returned, and few others, are decoded.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_rows(path, read_bytes(path), rows, flags)


def read_label(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Decode a label file as (H, W) uint8, the values as stored: grey levels or palette indices.

    Of a grey PNG only the ``rows`` that are returned, and few others, are decoded.
    """
    encoded = _label_bytes(path)
    depth, kind = 8, GREY
    if encoded.startswith(PNG_SIGNATURE) and len(encoded) > PNG_COLOUR_TYPE:
        depth, kind = encoded[PNG_DEPTH], encoded[PNG_COLOUR_TYPE]
    if kind == PALETTE:
        _check_whole(path, encoded)
        try:  # OpenCV would turn the palette's indices into colours
            return np.array(Image.open(io.BytesIO(encoded)))[rows]
        except UNREADABLE as error:
            raise DataError(f"{path}: not a whole PNG file ({error})") from None
    label = _decode_rows(path, encoded, rows, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        found = f"{label.shape[2] if label.ndim == 3 else 1} channels of {label.dtype}"
        hint = "; is it a colour mask for viewing?" if label.ndim == 3 else ""
        raise DataError(f"{path}: found {found}, expected one channel of 8-bit class values{hint}")
    if depth < 8:  # OpenCV stretched 1, 2 or 4 bits over 0..255
        label //= 255 // (2**depth - 1)
    return label


def read_colours(path: Path) -> np.ndarray:
    """Decode a label file whose values are colours as (H, W, 3) uint8, RGB."""
    return decode(path, _label_bytes(path), cv2.IMREAD_COLOR)[:, :, ::-1]


def _label_bytes(path: Path) -> bytes:
    encoded = read_bytes(path)
    if encoded.startswith(JPEG_SIGNATURE):
        raise DataError(f"{path}: a label must be a PNG; JPEG compression changes its values")
    return encoded


def read_size(path: Path) -> tuple[int, int]:
    """Return ``(height, width)`` from the header alone."""
    try:
        with Image.open(path) as image:
            return image.size[1], image.size[0]
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from None


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation, 1 (upright) where the file has none."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from None


def read_bytes(path: Path) -> bytes:
    """Return the file's content."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _decode_rows(path: Path, encoded: bytes, rows: slice, flags: int) -> np.ndarray:
    cut = cut_rows(encoded, rows)
    if cut is None:
        return decode(path, encoded, flags)[rows]
    part, first = cut
    decoded = decode(path, part, flags)
    start, stop, _ = rows.indices(first + len(decoded))
    return decoded[start - first : stop - first]


def decode(path: Path, encoded: bytes, flags: int) -> np.ndarray:
    """Decode an image in memory with OpenCV's ``flags``; ``path`` is for the message."""
    _check_whole(path, encoded)
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # a size beyond reason
        pixels = None
    if pixels is None:
        raise DataError(f"{path}: not a whole image file ({len(encoded)} bytes; damaged?)")
    return pixels


def _check_whole(path: Path, encoded: bytes) -> None:
    """Look for the mark at the file's end.

    JPEG decoders fill in what is missing without a word, PNG's print words of their own, and
    importing gluoncv makes Pillow fill in everywhere.
    """
    marks = [mark for signature, mark in END_MARKS.items() if encoded.startswith(signature)]
    if not encoded or any(mark not in encoded[-1024:] for mark in marks):
        raise DataError(f"{path}: not a whole image file ({len(encoded)} bytes; truncated?)")
