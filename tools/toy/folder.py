"""Write a generated data set as a folder, in one step."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from data_iter.errors import DataError
from tools.toy.layouts import WRITERS, split_sizes

MARKER = "toy_data.json"  # the file with the settings of a folder


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
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        whole = Path(temporary) / "whole"
        files = WRITERS[settings["layout"]](
            settings["frames"], settings["seed"], tuple(settings["hw"])
        )
        total = sum(split_sizes(settings["layout"], settings["frames"]).values())
        console = Console(stderr=True, markup=False)
        quiet = not console.is_terminal
        progress = track(files, "Drawing", total, console=console, transient=True, disable=quiet)
        for frame_files in progress:
            for name, content in frame_files.items():
                write(whole / name, content)
        (whole / MARKER).write_text(json.dumps(settings), encoding="utf-8")
        whole.rename(out)
    return True


def write(path: Path, content: str | np.ndarray | Image.Image) -> None:
    """Write a text, an array as the image format that ``path`` names, or a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        with path.open("a", encoding="utf-8") as file:  # lists grow by one line per frame
            file.write(content)
    elif isinstance(content, Image.Image):
        content.save(path)
    else:
        bgr = content[..., ::-1] if content.ndim == 3 else content
        # Encoded in memory: libpng would print its own messages when the disk is full.
        encoded = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        path.write_bytes(encoded.tobytes())
