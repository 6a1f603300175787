"""Prepared frames in MXNet's RecordIO: each is cut into tiles, so that a crop reads few pixels.

A prepared folder holds, for each split, ``SPLIT.frames.json`` and shards ``SPLIT-0000.rec`` with
their ``.idx``. A record is a square patch of a frame: the image as PNG or JPEG, then the label as
PNG, behind MXNet's ``IRHeader``, whose ``id`` is the CRC-32 of the two and ``id2`` the bytes of the
image. Tiles do not depend on patch plan, crop or scales, so one folder serves every config; and
nothing is stored twice, as whole overlapping patches would be.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import mxnet as mx
import numpy as np

from .errors import DataError

VERSION = 1
TILE = 128  # pixels; smaller ones waste less around a crop, larger ones cost fewer calls
MANIFEST = ".frames.json"
# A training pays for decoding over and over, and inflating is most of it: lossless images are
# stored, at twice the size of a compressed PNG; labels compress a hundredfold.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 0]
LABEL_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def manifest_file(root: Path, split: str) -> Path:
    """Name the manifest of ``split``; a list file's folder becomes part of the name."""
    return root / f"{split.replace('/', '_')}{MANIFEST}"


def is_prepared(root: Path) -> bool:
    """Tell a prepared folder from a data set's own."""
    return any(root.glob(f"*{MANIFEST}"))


def read_manifest(root: Path, split: str) -> dict[str, Any]:
    """Read the manifest of ``split``; ``DataError`` where it is missing or not one."""
    file = manifest_file(root, split)
    if not file.is_file():
        there = sorted(f.name[: -len(MANIFEST)] for f in root.glob(f"*{MANIFEST}"))
        raise DataError(f"{root}: split '{split}' is not packed in it; found {', '.join(there)}")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["version"]
    except (ValueError, TypeError, KeyError):
        raise DataError(
            f"{file}: not a manifest of prepared frames; pack the split again"
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
        payload = pixels + cv2.imencode(".png", label[place], LABEL_PNG)[1].tobytes()
        header = mx.recordio.IRHeader(0, 0.0, zlib.crc32(payload), len(pixels))
        records.append(mx.recordio.pack(header, payload))
    return records


def write_records(rec: Path, idx: Path, frames: Iterable[list[bytes]]) -> None:
    """Write the records of frames after each other, numbered from 0."""
    writer = mx.recordio.MXIndexedRecordIO(str(idx), str(rec), "w")
    try:
        for key, record in enumerate(record for frame in frames for record in frame):
            writer.write_idx(key, record)
    finally:
        writer.close()


class _Shard:
    """One open ``.rec`` file; its handle has one position, hence the lock."""

    def __init__(self, rec: Path):
        self.path = rec
        self._lock = threading.Lock()
        idx = rec.with_suffix(".idx")
        if not (rec.is_file() and idx.is_file()):
            raise DataError(f"{rec}: it or its .idx is missing; pack the split again")
        self._reader = mx.recordio.MXIndexedRecordIO(str(idx), str(rec), "r")

    def tile(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        """Decode a record as (image BGR, label)."""
        try:
            with self._lock:
                record = self._reader.read_idx(key)
            header, payload = mx.recordio.unpack(record)
        except (KeyError, TypeError, ValueError, mx.base.MXNetError):
            header, payload = None, b""
        if header is None or zlib.crc32(payload) != header.id:
            raise DataError(f"{self.path}: record {key} is damaged; pack the split again")
        encoded = np.frombuffer(payload, np.uint8)
        image = cv2.imdecode(encoded[: header.id2], cv2.IMREAD_COLOR)
        return image, cv2.imdecode(encoded[header.id2 :], cv2.IMREAD_UNCHANGED)


class RecordFrames:
    """The frames of a prepared folder; see :class:`data_iter.frames.Frames`."""

    def __init__(self, root: Path, split: str):
        found = []
        for part in split.split("+"):
            manifest = read_manifest(root, part)
            for entry in manifest["shards"]:
                shard, first = _Shard(root / entry["file"]), 0
                for name, hw in entry["frames"]:
                    found.append((name, tuple(hw), manifest["tile"], shard, first))
                    first += len(tile_corners(hw, manifest["tile"]))
        self._frames = sorted(found, key=lambda frame: frame[0])

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, number: int) -> str:
        """Say where a frame comes from."""
        return f"{self._frames[number][3].path}: frame {self._frames[number][0]}"

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
        across = -(-width // tile)
        for y in range(y0, y1, tile):
            for x in range(x0, x1, tile):
                place = (slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile))
                key = first + y // tile * across + x // tile
                image[place], label[place] = shard.tile(key)
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        return image[inside], label[inside]
