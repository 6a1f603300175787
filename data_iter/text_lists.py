"""Read lists that users write or other programs export: one entry per line, UTF-8.

A byte order mark, Windows' line ends, blank lines and lines that begin with ``#`` are ignored.
Every fault is a ``DataError`` that names file and line.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from .errors import DataError
from .image_files import read_bytes
from .listing import IMAGE_SUFFIXES

SUFFIXES = (".txt", ".tsv", ".lst", ".csv")


class Line(NamedTuple):
    """A line of a list and its number, from 1."""

    number: int
    text: str


class Listed(NamedTuple):
    """An image of a list file, and its label where the line has one."""

    image: Path
    label: Path | None
    number: int


def is_list(name: str) -> bool:
    """Whether the name of a split is that of a list file."""
    return name.lower().endswith(SUFFIXES)


def read_lines(path: Path) -> list[Line]:
    """Read the lines of a text file that have content, without blanks at their ends.

    Raises
    ------
    DataError
        It cannot be read, or it is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a list in UTF-8 ({error.reason}, byte {error.start})"
        ) from None
    lines = (Line(number, line.rstrip()) for number, line in enumerate(text.splitlines(), start=1))
    return [line for line in lines if line.text and not line.text.startswith("#")]


def read_names(path: Path) -> list[str]:
    """Read names of frames, one per line (``ImageSets/Segmentation/val.txt`` of PASCAL VOC).

    Raises
    ------
    DataError
        As :func:`read_lines`; a line is a path, a file name, a name of before, or has a second
        column; there is no name.
    """
    names: dict[str, int] = {}
    for number, text in read_lines(path):
        name = text.strip()
        is_file = name.lower().endswith(IMAGE_SUFFIXES)
        if is_file or "/" in name or "\\" in name or "\t" in name or len(name.split()) > 1:
            raise DataError(
                f"{path}: line {number}: expected the name of one frame without folder and "
                f"suffix, found {text[:80]!r}"
            )
        if name in names:
            raise DataError(f"{path}: line {number}: {name} is in line {names[name]} already")
        names[name] = number
    if not names:
        raise DataError(f"{path}: an empty list")
    return list(names)


def read_pairs(root: Path, path: Path) -> list[Listed]:
    """Read a list file: one image per line and, after a tab (``.csv``: a comma), its label.

    Both are relative to ``root``.

    Raises
    ------
    DataError
        As :func:`read_lines`; a line is too long, has more columns, or names an image that is not
        there.
    """
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    shown = "IMAGE,LABEL" if delimiter == "," else "IMAGE<tab>LABEL"
    listed = []
    for number, text in read_lines(path):
        try:
            columns = next(csv.reader([text])) if delimiter == "," else text.split(delimiter)
        except csv.Error as error:
            raise DataError(f"{path}: line {number}: {error}; expected {shown}") from None
        image, *label = (column.strip() for column in columns)
        if len(label) > 1:
            raise DataError(f"{path}: line {number}: expected {shown}, found {text[:80]!r}")
        if not (root / image).is_file():
            hint = "" if label else f" (expected {shown})"
            if image.startswith("/"):
                hint = "; without the / in front, paths are relative to the data root"
            raise DataError(f"{path}: line {number}: no such image: {root / image}{hint}")
        listed.append(Listed(root / image, root / label[0] if label else None, number))
    return listed
