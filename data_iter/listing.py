"""List files: what cannot be looked into is an error, not left out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import DataError


def list_files(root: Path, pattern: str) -> Iterator[Path]:
    """Yield what ``root.glob(pattern)`` yields.

    Raises
    ------
    DataError
        A folder that the pattern leads through cannot be read; ``glob`` would skip it.
    """
    *folders, _ = pattern.split("/")
    fixed = list(itertools.takewhile(lambda part: "*" not in part, folders))
    top, deep = root.joinpath(*fixed), "**" in folders
    for folder, inner, _ in os.walk(top, onerror=_unreadable, followlinks=not deep):
        if not deep and len(Path(folder).relative_to(root).parts) >= len(folders):
            inner.clear()
    return root.glob(pattern)


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # no such folder has no files
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})")
