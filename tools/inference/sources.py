"""What a user can name to be segmented: files, folders, patterns, lists, videos, cameras."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_iter.datasets import LIST_SUFFIXES
from data_iter.errors import DataError
from tools.inference.images import check_names, list_images

VIDEO_SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg")
PATTERN = "*?["  # a name that has one of these and is no file is a pattern


class Sources(NamedTuple):
    """Image files; videos, files or cameras by number; files in folders that are no images."""

    images: list[Path]
    videos: list[Path | int]
    others: list[Path]


def find_sources(names: Sequence[str], out: Path) -> Sources:
    """Find what ``names`` mean.

    Parameters
    ----------
    names : sequence of str
        An image or video file; a folder, of which the images count, at any depth; a pattern with
        ``*``, ``?`` or ``**``; a list (``.txt``, ``.tsv``, ``.lst``) with a name on each line,
        relative to the list; ``-`` for such lines on standard input; the number of a camera.
    out : Path
        Where results go. Files below it are no images.

    Raises
    ------
    DataError
        A name is a URL or nothing that exists; no image and no video is found; two images would
        have results of the same name.
    """
    images: list[Path] = []
    videos: list[Path | int] = []
    others: list[Path] = []
    for name in _expand(names, Path()):
        if name.isdecimal() and not Path(name).exists():
            videos.append(int(name))
        elif name.lower().endswith(VIDEO_SUFFIXES) and Path(name).is_file():
            videos.append(Path(name))
        else:
            found, left = list_images(Path(name), out)
            images, others = images + found, others + left
    images = list(dict.fromkeys(images))
    check_names([*images, *(video for video in videos if isinstance(video, Path))], out)
    return Sources(images, videos, others)


def _expand(names: Iterable[str], base: Path) -> Iterable[str]:
    for name in names:
        if "://" in name:
            raise DataError(f"{name}: URLs are not read; download it and name the file")
        path = base / name
        if name == "-":
            yield from _expand(_lines(sys.stdin.read(), "standard input"), Path())
        elif name.lower().endswith(LIST_SUFFIXES) and path.is_file():
            yield from _expand(_lines(_read(path), str(path)), path.parent)
        elif any(sign in name for sign in PATTERN) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # may be absolute
            if not found:
                raise DataError(f"{name}: no file matches this pattern")
            yield from found
        else:
            yield name if name.isdecimal() else str(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of files ({error})") from None


def _lines(text: str, source: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#") and line != "-"]
    if not names:
        raise DataError(f"{source}: an empty list")
    return names
