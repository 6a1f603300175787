"""Select the images and labels of a folder: one rule for every command."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
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
        ``*`` in the folder itself, ``**/*`` at any depth, also below linked folders.
    suffixes : iterable of str
        Only names that end so, in any case; empty: all.

    Raises
    ------
    DataError
        A folder that the pattern leads through cannot be read; ``glob`` would skip it.
    """
    wanted, name = tuple(suffixes), pattern.removeprefix("**/")
    if name == pattern:
        _check_readable(root, pattern)
    return sorted(
        path
        for folder in ([root] if name == pattern else _folders_below(root))
        for path in folder.glob(name)
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
    for folder, inner, _ in os.walk(root.joinpath(*fixed), onerror=_unreadable, followlinks=True):
        if len(Path(folder).relative_to(root).parts) >= len(folders):
            inner.clear()


def _folders_below(root: Path) -> Iterator[Path]:
    """Yield ``root`` and the folders below it, without clutter; ``**`` would skip linked ones.

    Each folder comes once, by its own path rather than by a link. A link to a folder around
    ``root`` leads in circles and is not followed.
    """
    seen = {str(folder) for folder in root.resolve().parents}
    starts = deque([root])
    while starts:
        for name, inner, _ in os.walk(starts.popleft(), onerror=_unreadable):
            folder, real = Path(name), os.path.realpath(name)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            yield folder
            inner[:] = sorted(other for other in inner if not is_clutter(other))
            starts += [folder / other for other in inner if (folder / other).is_symlink()]


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
