"""Read one image or one label file; every fault is a ``DataError`` that names the file."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import DataError
from .png_rows import SIGNATURE as PNG_SIGNATURE
from .png_rows import cut_rows, is_whole

PNG_DEPTH, PNG_COLOUR_TYPE = 24, 25  # offsets in the file of two bytes of IHDR
GREY, PALETTE = 0, 3  # PNG colour types
JPEG_SIGNATURE, GIF_SIGNATURE = b"\xff\xd8", b"GIF8"
LOSSLESS = "a label must be a PNG, BMP, TIFF or GIF"
END_MARKS = {PNG_SIGNATURE: b"IEND", JPEG_SIGNATURE: b"\xff\xd9"}
EXIF_ORIENTATION = 0x0112
# A small file can claim any size, so the header is read before the pixels. OpenCV decodes most
# files here, so its limit, and the variable that raises it, apply to Pillow too.
PIXEL_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"
MAX_PIXELS = int(os.environ.get(PIXEL_LIMIT) or 1 << 30)
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# What Pillow raises: missing file, not an image, damaged or truncated chunk, excessive size.
UNREADABLE = (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError)


def read_image(path: Path) -> np.ndarray:
    """Decode an image as (H, W, 3) uint8, RGB, in the orientation in which its pixels are stored.

    An EXIF rotation is not applied, because the label file of the image would not follow it.
    """
    image = read_bgr(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_bgr(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Like :func:`read_image`, in OpenCV's own channel order, which saves a pass over the image.

    Of a PNG, only the returned ``rows`` and a few others are decoded.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_rows(path, read_bytes(path), rows, flags)


def read_label(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Decode a label file as (H, W) uint8, the values as stored: grey levels or palette indices.

    Of a grey PNG, only the returned ``rows`` and a few others are decoded.
    """
    encoded = _label_bytes(path)
    if not encoded.startswith(PNG_SIGNATURE):
        return _read_values(path, encoded)[rows]
    depth, kind = 8, GREY
    if len(encoded) > PNG_COLOUR_TYPE:
        depth, kind = encoded[PNG_DEPTH], encoded[PNG_COLOUR_TYPE]
    if kind == PALETTE:
        label = _read_values(path, encoded)[rows]
        if not is_whole(encoded):  # OpenCV checks this by itself, Pillow does not
            raise DataError(f"{path}: damaged: a checksum in the PNG file is wrong")
        return label
    label = _decode_rows(path, encoded, rows, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        found = f"{label.shape[2] if label.ndim == 3 else 1} channels of {label.dtype}"
        hint = "; is it a colour mask for viewing?" if label.ndim == 3 else ""
        raise DataError(f"{path}: found {found}, expected one channel of 8-bit class values{hint}")
    if depth < 8:  # OpenCV stretched 1, 2 or 4 bits over 0..255
        label //= 255 // (2**depth - 1)
    return label


def _read_values(path: Path, encoded: bytes) -> np.ndarray:
    """Decode grey levels or palette indices, which OpenCV would turn into colours."""
    _check_whole(path, encoded)
    _header(path, io.BytesIO(encoded))
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, compression = image.mode, image.info.get("compression")
            values = np.array(image)
    except UNREADABLE as error:
        raise DataError(f"{path}: not a whole image file ({error})") from None
    except MemoryError:
        raise _too_large(path) from None
    if compression == "jpeg":
        raise DataError(f"{path}: {LOSSLESS}; JPEG compression changes its values")
    if mode not in ("L", "P"):
        hint = "; is it a colour mask for viewing?" if values.ndim == 3 else ""
        raise DataError(
            f"{path}: found pixels of mode {mode}, expected one channel of 8-bit class values{hint}"
        )
    return values


def read_colours(path: Path) -> np.ndarray:
    """Decode a label file whose values are colours as (H, W, 3) uint8, RGB."""
    return decode(path, _label_bytes(path), cv2.IMREAD_COLOR)[:, :, ::-1]


def _label_bytes(path: Path) -> bytes:
    encoded = read_bytes(path)
    if encoded.startswith(JPEG_SIGNATURE):
        raise DataError(f"{path}: {LOSSLESS}; JPEG compression changes its values")
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        raise DataError(f"{path}: {LOSSLESS}; WebP has no 8-bit class values")
    return encoded


def read_size(path: Path) -> tuple[int, int]:
    """Return ``(height, width)`` from the header alone."""
    check_regular(path)
    return _header(path, path)


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation; 1 (upright) if the file has none."""
    read_size(path)
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_reason(error)})") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file."""
    check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise _too_large(path) from None


def check_regular(path: Path) -> None:
    """Raise ``DataError`` unless ``path`` is a file, or a link to one.

    Opening a pipe or a device would wait for data without end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({reason})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise DataError(f"{path}: expected a file, found {kind}")


def _header(path: Path, source: Path | io.BytesIO) -> tuple[int, int]:
    """Return ``(height, width)``; ``path`` is for the message."""
    try:
        with Image.open(source) as image:
            width, height = image.size
        if width * height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{width}x{height}")
    except Image.DecompressionBombError as error:  # Pillow's own comes at twice the limit
        raise DataError(
            f"{path}: more than {MAX_PIXELS} pixels ({error}): set {PIXEL_LIMIT} to read it"
        ) from None
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_reason(error)})") from None
    return height, width


def _reason(error: Exception) -> str:
    """Say why Pillow cannot read a file; it names one in memory by its address."""
    known = isinstance(error, UnidentifiedImageError)
    return "damaged, or of another format" if known else str(error)


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: it does not fit into the memory that this process may use")


def _decode_rows(path: Path, encoded: bytes, rows: slice, flags: int) -> np.ndarray:
    _check_whole(path, encoded)
    _header(path, io.BytesIO(encoded))
    try:
        cut = cut_rows(encoded, rows)
    except MemoryError:
        raise _too_large(path) from None
    if cut is None:
        return decode(path, encoded, flags)[rows]
    part, first = cut
    decoded = decode(path, part, flags)
    start, stop, _ = rows.indices(first + len(decoded))
    return decoded[start - first : stop - first]


def decode(path: Path, encoded: bytes, flags: int) -> np.ndarray:
    """Decode an image in memory with OpenCV's ``flags``; ``path`` is for the message."""
    _check_whole(path, encoded)
    if encoded.startswith(GIF_SIGNATURE):
        return _decode_gif(path, encoded)
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _too_large(path) from None
        pixels = None  # an unreasonable size
    if pixels is None:
        raise DataError(f"{path}: not a whole image file ({len(encoded)} bytes; damaged?)")
    return pixels


def _decode_gif(path: Path, encoded: bytes) -> np.ndarray:
    """Decode the first picture as (H, W, 3) uint8 BGR: OpenCV 4.10 has no GIF."""
    _header(path, io.BytesIO(encoded))
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.ascontiguousarray(np.array(image.convert("RGB"))[:, :, ::-1])
    except UNREADABLE as error:
        raise DataError(f"{path}: not a whole image file ({error})") from None


def _check_whole(path: Path, encoded: bytes) -> None:
    """Check that the file ends with its format's end marker.

    JPEG decoders fill missing data silently, PNG decoders print their own messages, and importing
    gluoncv makes Pillow fill missing data in every format.
    """
    marks = [mark for signature, mark in END_MARKS.items() if encoded.startswith(signature)]
    if not encoded or any(mark not in encoded[-1024:] for mark in marks):
        raise DataError(f"{path}: not a whole image file ({len(encoded)} bytes; truncated?)")
