"""Decode only some rows of a PNG, faster than OpenCV alone does.

A PNG can only be inflated from the top, and inflating takes most of the time. Intel's ISA-L
(package ``isal``) inflates twice as fast as zlib and stops after the wanted rows. These are passed
to OpenCV as an uncompressed PNG, so that OpenCV undoes PNG's filters.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

igzip_lib: Any
isal_zlib: Any
try:
    from isal import igzip_lib, isal_zlib
except ImportError:  # no wheel for this machine: OpenCV decodes the whole file
    igzip_lib = isal_zlib = None
inflating = isal_zlib or zlib  # the fastest zlib of this machine, for other modules too

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Width, height, depth, colour type, and the methods of compression, filtering and interlacing.
HEADER = struct.Struct(">IIBBBBB")
CHANNELS = {0: 1, 2: 3}  # bytes per pixel of grey and RGB, the colour types without a palette
ALONE = (b"\0", b"\1")  # filters None and Sub: they do not refer to the row above
STORED_BLOCK = 65535  # bytes that one uncompressed deflate block holds


def cut_rows(encoded: bytes, rows: slice) -> tuple[bytes, int] | None:
    """Return a PNG with ``rows`` of another as its last rows, and the number of its first row.

    A row can be decoded without the row above it if its filter does not refer to that row; the new
    PNG begins with the last such row that is early enough. The result is None if the whole image
    must be decoded: it is not a PNG, not 8-bit grey or RGB, interlaced, or damaged (OpenCV then
    reports it), or this machine has no ``isal``.
    """
    chunks = _chunks(encoded) if igzip_lib else None
    if chunks is None:
        return None
    header, compressed = chunks
    width, height, depth, colour, *methods = HEADER.unpack(header)
    if depth != 8 or colour not in CHANNELS or any(methods):
        return None
    start, stop, _ = rows.indices(height)
    stride = 1 + width * CHANNELS[colour]  # a row is its filter's number and its bytes
    length = max(stop, start + 1) * stride
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
    try:
        filtered = inflater.decompress(compressed, length)
    except isal_zlib.error:
        return None
    if len(filtered) != length:
        return None
    filters = filtered[: (start + 1) * stride : stride]
    first = max(0, *map(filters.rfind, ALONE))
    header = HEADER.pack(width, length // stride - first, depth, colour, *methods)
    pixels = _stored(memoryview(filtered)[first * stride :])
    parts = (*_chunk(b"IHDR", [header]), *_chunk(b"IDAT", pixels), *_chunk(b"IEND", []))
    return b"".join((SIGNATURE, *parts)), first


def is_whole(encoded: bytes) -> bool:
    """Whether a PNG has every chunk that decoding needs, with the right checksum."""
    view, position, kind = memoryview(encoded), len(SIGNATURE), b""
    while kind != b"IEND" and position + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        end = position + 8 + length
        if end + 4 > len(view):
            return False
        critical = kind[:1].isupper()  # PNG allows decoders to skip the other chunks
        if critical and inflating.crc32(view[position + 4 : end]) != int.from_bytes(
            view[end : end + 4], "big"
        ):
            return False
        position = end + 4
    return kind == b"IEND"


def _chunks(encoded: bytes) -> tuple[bytes, bytes] | None:
    """Return the content of IHDR and of all IDAT; None if a chunk is cut or its checksum wrong."""
    view, position, header, data = memoryview(encoded), len(SIGNATURE), b"", []
    if not encoded.startswith(SIGNATURE):
        return None
    while position + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        end = position + 8 + length
        if end + 4 > len(view):
            return None
        content = view[position + 8 : end]
        if kind in (b"IHDR", b"IDAT", b"tRNS"):
            (checksum,) = struct.unpack_from(">I", view, end)
            if kind == b"tRNS" or isal_zlib.crc32(content, isal_zlib.crc32(kind)) != checksum:
                return None
        if kind == b"IHDR" and length == HEADER.size:
            header = bytes(content)
        elif kind == b"IDAT":
            data.append(content)
        elif kind == b"IEND":
            return (header, b"".join(data)) if header and data else None
        position = end + 4
    return None


def _stored(content: memoryview) -> list[Any]:
    """Wrap bytes as a zlib stream without compression (RFC 1950 and 1951)."""
    parts: list[Any] = [b"\x78\x01"]
    for begin in range(0, len(content), STORED_BLOCK):
        block = content[begin : begin + STORED_BLOCK]
        last = begin + STORED_BLOCK >= len(content)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return [*parts, struct.pack(">I", isal_zlib.adler32(content))]


def _chunk(kind: bytes, parts: list) -> list:
    checksum = isal_zlib.crc32(kind)
    for part in parts:
        checksum = isal_zlib.crc32(part, checksum)
    return [struct.pack(">I", sum(map(len, parts))), kind, *parts, struct.pack(">I", checksum)]
