"""Find the sources that a user names: files, folders, patterns, lists, videos, cameras."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_iter.errors import DataError
from data_iter.text_lists import is_list, read_lines
from tools.inference.images import check_names, list_images

VIDEO_SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg")
PATTERN = "*?["  # a name with one of these that is not a file is a pattern


class Sources(NamedTuple):
    """Image files; videos (files, or cameras by number); files in folders that are not images."""

    images: list[Path]
    videos: list[Path | int]
    others: list[Path]


def find_sources(names: Sequence[str], out: Path) -> Sources:
    """Find the images and videos that ``names`` stand for.

    Parameters
    ----------
    names : sequence of str
        An image or video file; a folder, of which the images count, at any depth; a pattern with
        ``*``, ``?`` or ``**``; a list (``.txt`` and so on) with a name on each line,
        relative to the list; ``-`` for such lines on standard input; the number of a camera.
    out : Path
        Folder of results. Files below it are not read as images.

    Raises
    ------
    DataError
        A name is a URL or does not exist; neither an image nor a video is found; two images would
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
            yield from _expand(_checked(sys.stdin.read().splitlines(), "standard input"), Path())
        elif is_list(name) and path.is_file():
            lines = [line.text for line in read_lines(path)]
            yield from _expand(_checked(lines, str(path)), path.parent)
        elif any(sign in name for sign in PATTERN) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # may be absolute
            if not found:
                raise DataError(f"{name}: no file matches this pattern")
            yield from found
        else:
            yield name if name.isdecimal() else str(path)


def _checked(lines: Iterable[str], source: str) -> list[str]:
    """Return the names of a list; it must not be empty, and must not name standard input."""
    names = [line.strip() for line in lines]
    names = [name for name in names if name and name != "-"]
    if not names:
        raise DataError(f"{source}: an empty list")
    return names
