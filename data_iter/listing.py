"""Select the images and labels of a folder: one rule for every command."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from .errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # lossless, one channel
# Files that file managers and editors leave behind; names that begin with a dot are left out too.
CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "__pycache__"}
SHOWN = 3  # names in a message


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name holds no data: hidden (``._x.png``), or a cache."""
    return name.startswith(".") or name.lower() in CLUTTER


def list_files(root: Path, pattern: str = "*", suffixes: Iterable[str] = ()) -> list[Path]:
    """List the files below ``root`` that match a glob, sorted; clutter is left out.

    Parameters
    ----------
    root : Path
        A folder that is missing has no files.
    pattern : str
        ``*`` in the folder itself, ``**/*`` at any depth.
    suffixes : iterable of str
        Only names that end so, in any case; empty: all.

    Raises
    ------
    DataError
        A folder that the pattern leads through cannot be read; ``glob`` would skip it.
    """
    _check_readable(root, pattern)
    wanted = tuple(suffixes)
    return sorted(
        path
        for path in root.glob(pattern)
        if not any(is_clutter(part) for part in path.relative_to(root).parts)
        and (not wanted or path.name.lower().endswith(wanted))
        and not path.is_dir()
    )


def list_folders(root: Path) -> list[Path]:
    """List the folders in ``root``, sorted, without clutter; ``DataError`` as above."""
    _check_readable(root, "*")
    return sorted(path for path in root.glob("*") if path.is_dir() and not is_clutter(path.name))


def _check_readable(root: Path, pattern: str) -> None:
    *folders, _ = pattern.split("/")
    fixed = list(itertools.takewhile(lambda part: "*" not in part, folders))
    top, deep = root.joinpath(*fixed), "**" in folders
    for folder, inner, _ in os.walk(top, onerror=_unreadable, followlinks=not deep):
        if not deep and len(Path(folder).relative_to(root).parts) >= len(folders):
            inner.clear()


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # no such folder has no files
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})")


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Key files by their names without suffix; ``DataError`` if two files share a name."""
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(file.stem, file)
        if other != file:
            raise DataError(f"{file}: {other.name} has the same name without its suffix; keep one")
    return found


def shortened(names: Iterable[object], shown: int = SHOWN) -> str:
    """Write a few names and the number of the others: ``a, b, c and 4 more``."""
    every = [str(name) for name in names]
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(every[:shown]) + more
