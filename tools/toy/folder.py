"""Write a generated data set as a folder, in one step."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from data_iter.errors import DataError
from tools.toy.layouts import WRITERS, split_sizes
from train.atomic import atomic_folder, check_room

MARKER = "toy_data.json"  # the file with the settings of a folder
SPARE_ROOM = 1.1  # the estimate of the size comes from one frame


def make(out: Path, settings: dict) -> bool:
    """Write the data set of ``settings`` to ``out`` in one step; False if it is there already.

    Raises
    ------
    DataError
        ``out`` is not a folder, or it holds anything else. It is then left as it is.
    """
    marker = out / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == json.dumps(settings):
        return False
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give another --out")
    if out.is_dir() and any(out.iterdir()):
        held = "toy data made with other settings" if marker.is_file() else "something else"
        raise DataError(f"{out}: holds {held}; remove it or give another --out")
    frames = WRITERS[settings["layout"]](
        settings["frames"], settings["seed"], tuple(settings["hw"])
    )
    total = sum(split_sizes(settings["layout"], settings["frames"]).values())
    first = next(frames)
    size = sum(len(encode(name, content)) for name, content in first.items())
    check_room(out, int(SPARE_ROOM * total * size), f"{total} frames take about")
    with atomic_folder(out) as whole:
        console = Console(stderr=True, markup=False)
        quiet = not console.is_terminal
        files = itertools.chain([first], frames)
        progress = track(files, "Drawing", total, console=console, transient=True, disable=quiet)
        for frame_files in progress:
            for name, content in frame_files.items():
                write(whole / name, content)
        (whole / MARKER).write_text(json.dumps(settings), encoding="utf-8")
    return True


def write(path: Path, content: str | np.ndarray | Image.Image) -> None:
    """Write what :func:`encode` makes of a content; texts go to the end of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:  # lists grow by one line per frame
        file.write(encode(path.name, content))


def encode(name: str, content: str | np.ndarray | Image.Image) -> bytes:
    """Encode a text, an array in the image format of ``name``, or a palette image."""
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, Image.Image):
        encoded = io.BytesIO()
        content.save(encoded, "PNG")
        return encoded.getvalue()
    bgr = content[..., ::-1] if content.ndim == 3 else content
    # Encoded in memory: libpng would print its own messages when the disk is full.
    return cv2.imencode(Path(name).suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
