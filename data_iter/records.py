"""Prepared frames in MXNet's RecordIO: each is cut into tiles, so that a crop reads few pixels.

A prepared folder holds, for each split, ``SPLIT.frames.json`` and shards ``SPLIT-0000.rec`` with
their ``.idx``. A record is a square patch of a frame: the image as PNG or JPEG, then the label's
bytes deflated (zlib), behind MXNet's ``IRHeader``, whose ``id`` is the CRC-32 of the two and
``id2`` the number of the image's bytes. Tiles do not depend on patch plan, crop or scales, so one
folder serves every config. No pixel is stored twice; overlapping patches would repeat pixels.

MXNet writes the files. They are read here, since MXNet's reader has one position and so serves one
thread at a time. A crop's tiles of one row are adjacent in the file, and one call reads them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import mxnet as mx
import numpy as np

from .errors import DataError
from .png_rows import inflating
from .sealed import unseal

VERSION = 3
TILE = 128  # pixels; smaller ones waste less around a crop, larger ones cost fewer calls
MANIFEST = ".frames.json"
# A training decodes each frame many times, and inflating is most of the cost: lossless images are
# stored, at twice the size of a compressed PNG; labels compress a hundredfold.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 0]
# RecordIO: a record begins with MAGIC and a word that holds its length and, in the upper three
# bits, whether it is whole or a part of one; it is filled up to whole words. MXNet takes MAGIC out
# of the content, where it stands at a whole word, by cutting the record there.
MAGIC = 0xCED7230A
FRAMING = struct.Struct("<II")
LENGTH_BITS = 29
WHOLE, LAST_PART = 0, 3
IR_HEADER = struct.Struct("<IfQQ")  # mx.recordio.IRHeader: flag, label, id, id2
Decoded = TypeVar("Decoded")


def manifest_file(root: Path, split: str) -> Path:
    """Name the manifest of ``split``; a list file's folder becomes part of the name."""
    return root / f"{split.replace('/', '_')}{MANIFEST}"


def is_prepared(root: Path) -> bool:
    """Whether a folder is a prepared one, not a data set's own."""
    return any(root.glob(f"*{MANIFEST}"))


def read_manifest(root: Path, split: str) -> dict[str, Any]:
    """Read the manifest of ``split``; ``DataError`` if it is missing or damaged."""
    file = manifest_file(root, split)
    if not file.is_file():
        there = sorted(f.name[: -len(MANIFEST)] for f in root.glob(f"*{MANIFEST}"))
        raise DataError(
            f"{root}: split '{split}' is not packed in it; found {', '.join(there)}; "
            f"add it with prepare_data.py pack --split {split}"
        )
    try:
        manifest = unseal(file.read_text(encoding="utf-8"))
        version = manifest["version"]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file}: not a manifest of prepared frames, or damaged ({error}); remove it and pack "
            "the split again"
        ) from None
    if version != VERSION:
        raise DataError(f"{file}: format {version}, expected {VERSION}; pack the split again")
    return manifest


def tile_corners(hw: Sequence[int], tile: int) -> list[tuple[int, int]]:
    """List the top left corners of a frame's tiles, row by row; the last ones may be smaller."""
    return [(y, x) for y in range(0, hw[0], tile) for x in range(0, hw[1], tile)]


def encode_frame(image: np.ndarray, label: np.ndarray, jpeg_quality: int | None) -> list[bytes]:
    """Encode a frame's tiles as records.

    ``image`` is (H, W, 3) uint8 BGR, ``label`` (H, W) uint8; a quality of None keeps every bit.
    """
    suffix, how = ".png", PNG
    if jpeg_quality is not None:
        suffix, how = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    records = []
    for y, x in tile_corners(image.shape[:2], TILE):
        place = (slice(y, y + TILE), slice(x, x + TILE))
        pixels = cv2.imencode(suffix, image[place], how)[1].tobytes()
        payload = pixels + zlib.compress(label[place].tobytes())
        header = mx.recordio.IRHeader(0, 0.0, zlib.crc32(payload), len(pixels))
        records.append(mx.recordio.pack(header, payload))
    return records


def write_records(rec: Path, idx: Path, frames: Iterable[list[bytes]]) -> None:
    """Write the records of frames one after the other, numbered from 0.

    Raises
    ------
    DataError
        The file could not be written whole.
    """
    writer = mx.recordio.MXIndexedRecordIO(str(idx), str(rec), "w")
    try:
        for key, record in enumerate(record for frame in frames for record in frame):
            writer.write_idx(key, record)
        length = writer.tell()
    except mx.base.MXNetError:
        raise DataError(f"{rec}: cannot be written; is the disk full?") from None
    finally:
        writer.close()
    if rec.stat().st_size != length:  # MXNet does not report a failure of the last block
        raise DataError(f"{rec}: cannot be written; is the disk full?")


class Shard:
    """A ``.rec`` file with its ``.idx``; ``DataError`` if one is missing or damaged.

    The file is opened for each call: a large data set has more shards than a process may have
    files open.
    """

    def __init__(self, rec: Path):
        self.path = rec
        idx = rec.with_suffix(".idx")
        if not (rec.is_file() and idx.is_file()):
            raise DataError(f"{rec}: it or its .idx is missing; pack the split again")
        try:  # one line per record: its number, a tab, its position in the file
            lines = idx.read_text(encoding="ascii").splitlines()
            begins = [int(line.split("\t")[1]) for line in lines]
        except (ValueError, IndexError, OverflowError):
            raise DataError(f"{idx}: not an index of records; pack the split again") from None
        # An array: a split of Cityscapes has millions of records.
        self._begins = np.array([*begins, rec.stat().st_size], np.int64)
        if (np.diff(self._begins) < 0).any():
            raise DataError(f"{idx}: does not belong to its .rec; pack the split again")

    def __len__(self) -> int:
        """Count the records."""
        return len(self._begins) - 1

    def tiles(self, first: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Decode records that follow each other as (image BGR, label)."""
        return self._decoded(first, count, _tile)

    def labels(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Decode the labels alone, each as its values in a row."""
        return self._decoded(first, count, _label)

    def _decoded(
        self, first: int, count: int, decode: Callable[[memoryview, int], Decoded]
    ) -> Iterator[Decoded]:
        record, begins = first, self._begins[first : first + count + 1].tolist()
        try:
            with self.path.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), begins[-1] - begins[0], begins[0])
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from None
        try:
            for record, begin in enumerate(begins[:-1], first):  # noqa: B007 said by the error
                yield decode(*_payload(content, begin - begins[0]))
        except (ValueError, struct.error, inflating.error):
            raise DataError(
                f"{self.path}: record {record} is damaged; pack the split again"
            ) from None


def _payload(content: bytes, position: int) -> tuple[memoryview, int]:
    """Return image and label of the record at ``position``, and the bytes of the image.

    ``ValueError`` or ``struct.error`` where it is damaged.
    """
    view, parts, kind = memoryview(content), [], None
    while kind not in (WHOLE, LAST_PART):
        magic, word = FRAMING.unpack_from(view, position)
        kind, length = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
        if magic != MAGIC:
            raise ValueError("no record begins here")
        begin = position + FRAMING.size
        parts.append(view[begin : begin + length])
        position = begin + -(-length // 4) * 4
    record = parts[0] if len(parts) == 1 else memoryview(MAGIC.to_bytes(4, "little").join(parts))
    _, _, checksum, size = IR_HEADER.unpack_from(record)
    payload = record[IR_HEADER.size :]
    if inflating.crc32(payload) != checksum or size > len(payload):
        raise ValueError("wrong checksum or size")
    return payload, size


def _label(payload: memoryview, size: int) -> np.ndarray:
    return np.frombuffer(inflating.decompress(payload[size:], bufsize=TILE * TILE), np.uint8)


def _tile(payload: memoryview, size: int) -> tuple[np.ndarray, np.ndarray]:
    image = cv2.imdecode(np.frombuffer(payload, np.uint8, size), cv2.IMREAD_COLOR)
    return image, _label(payload, size).reshape(image.shape[:2])


class RecordFrames:
    """The frames of a prepared folder; see :class:`data_iter.frames.Frames`."""

    def __init__(self, root: Path, split: str):
        found = []
        for part in split.split("+"):
            manifest = read_manifest(root, part)
            for entry in manifest["shards"]:
                shard, first = Shard(root / entry["file"]), 0
                for name, hw in entry["frames"]:
                    found.append((name, tuple(hw), manifest["tile"], shard, first))
                    first += len(tile_corners(hw, manifest["tile"]))
                if len(shard) != first:
                    raise DataError(
                        f"{shard.path}: {len(shard)} records in its .idx, expected {first}; "
                        "pack the split again"
                    )
        self._frames = sorted(found, key=lambda frame: frame[0])

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, number: int) -> str:
        """Say where a frame comes from."""
        return f"{self._frames[number][3].path}: frame {self._frames[number][0]}"

    def key(self, number: int) -> str:
        """Return a frame's name."""
        return self._frames[number][0]

    def hw(self, number: int) -> tuple[int, int]:
        """Return (height, width)."""
        return self._frames[number][1]

    def read(
        self, number: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a region as (image BGR, label)."""
        _, (height, width), tile, shard, first = self._frames[number]
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        if top >= bottom or left >= right:
            return np.empty((0, 0, 3), np.uint8), np.empty((0, 0), np.uint8)
        y0, x0 = top - top % tile, left - left % tile
        y1, x1 = min(-(-bottom // tile) * tile, height), min(-(-right // tile) * tile, width)
        image, label = (
            np.empty((y1 - y0, x1 - x0, 3), np.uint8),
            np.empty((y1 - y0, x1 - x0), np.uint8),
        )
        across, columns_of_tiles = -(-width // tile), range(x0, x1, tile)
        for y in range(y0, y1, tile):
            key = first + y // tile * across + x0 // tile
            for x, decoded in zip(columns_of_tiles, shard.tiles(key, len(columns_of_tiles))):
                place = (slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile))
                image[place], label[place] = decoded
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        return image[inside], label[inside]

    def read_label(self, number: int) -> np.ndarray:
        """Return a whole label."""
        _, hw, tile, shard, first = self._frames[number]
        label, corners = np.empty(hw, np.uint8), tile_corners(hw, tile)
        for (y, x), values in zip(corners, shard.labels(first, len(corners))):
            part = label[y : y + tile, x : x + tile]
            part[:] = values.reshape(part.shape)
        return label
