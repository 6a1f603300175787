"""Find the sources that a user names: files, folders, patterns, lists, videos, cameras."""

from __future__ import annotations

import glob
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_iter.errors import DataError
from data_iter.text_lists import is_list, read_lines
from tools.inference.files import check_names, check_targets, list_images, results_of
from tools.inference.video import film_results

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
        A name is a URL or does not exist; a list leads back to itself; neither an image nor a video
        is found; two sources would have results of the same name, or a result replace a source.
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
    sources = [*images, *(video for video in videos if isinstance(video, Path))]
    check_names(sources)
    results = [*(results_of(image, out) for image in images)]
    films = [*(film_results(video, out) for video in videos)]
    check_targets(sources, itertools.chain(*results, *films))
    return Sources(images, videos, others)


def _expand(names: Iterable[str], base: Path, lists: Sequence[Path] = ()) -> Iterable[str]:
    """Yield files, folders and cameras; ``lists`` are those that led to ``names``."""
    for name in names:
        if "://" in name:
            raise DataError(f"{name}: URLs are not read; download it and name the file")
        path = base / name
        if name == "-":
            yield from _expand(_checked(sys.stdin.read().splitlines(), "standard input"), Path())
        elif is_list(name) and path.is_file():
            if path.resolve() in lists:
                raise DataError(f"{path}: the list leads back to itself")
            lines = [line.text for line in read_lines(path)]
            lists_in_it = (*lists, path.resolve())
            yield from _expand(_checked(lines, str(path)), path.parent, lists_in_it)
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
