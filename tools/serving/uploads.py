"""Read images from requests: sizes are checked before decoding, a refusal is one sentence."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from data_iter.errors import DataError
from data_iter.image_files import UNREADABLE, decode

KINDS = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes
    ----------
    megabytes : int
        Largest size of a body.
    megapixels : int
        Largest size of an image, read from its header before anything is decoded.
    seconds : float
        Longest time for a body to arrive.
    waiting : int
        Largest number of requests that are read, wait or are computed; others are refused with 503.
    """

    megabytes: int = 16
    megapixels: int = 12
    seconds: float = 20.0
    waiting: int = 8


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body; ``HTTPException`` if it is too long, too slow, empty or of another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (*KINDS.values(), "application/octet-stream"):
        raise HTTPException(415, "expected the bytes of a PNG or JPEG as the body, image/png or so")
    most = limits.megabytes << 20
    too_long = HTTPException(413, f"the file is larger than {limits.megabytes} MB")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_long
    body = bytearray()

    async def receive() -> None:
        async for part in request.stream():
            body.extend(part)
            if len(body) > most:
                raise too_long

    try:
        await asyncio.wait_for(receive(), limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the file did not come within {limits.seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended before the file did") from None
    if not body:
        raise HTTPException(400, "the body is empty; expected the bytes of a PNG or JPEG")
    return bytes(body)


def decode_upload(body: bytes, limits: Limits) -> np.ndarray:
    """Decode a body as (H, W, 3) uint8 RGB; ``HTTPException`` gives the reason if it fails."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            kind, (width, height) = image.format, image.size
    except Image.DecompressionBombError:
        raise HTTPException(
            413, f"more than {limits.megapixels} million pixels; send it smaller"
        ) from None
    except (*UNREADABLE, MemoryError):
        kind, width, height = None, 0, 0
    if kind not in KINDS:
        raise HTTPException(415, "this is no PNG and no JPEG")
    if width * height > limits.megapixels * 10**6:
        raise HTTPException(
            413, f"{width}x{height} pixels, more than {limits.megapixels} million; send it smaller"
        )
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        return decode(Path("upload"), body, flags)[:, :, ::-1]
    except DataError as error:
        raise HTTPException(422, str(error)) from None
