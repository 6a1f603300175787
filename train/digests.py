"""Digests of a folder's files, in the format of ``sha256sum``: ``sha256sum -c SHA256SUMS`` agrees.

A new digest is listed beside the old one before the file changes; the old one is removed
afterwards. So every file has a listed digest whenever a process dies.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .atomic import atomic_write, digest
from .errors import RunError

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def write_listed(path: Path, content: bytes) -> None:
    """Write a file whole, and its digest into the list beside it."""
    new = hashlib.sha256(content).hexdigest()
    _list(path, _listed(path) | {new})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    _list(path, {new})


def list_file(path: Path) -> None:
    """Add the digest of an existing file to the list."""
    _list(path, {digest(path)})


def check_listed(path: Path) -> None:
    """Raise ``RunError`` if a file's digest differs from the listed one.

    A file that is not listed, as in a folder made by hand, is not checked.
    """
    listed = _listed(path)
    if listed and digest(path) not in listed:
        raise RunError(
            f"{path}: damaged, or edited: its SHA-256 is not the one in {SUMS}; if it was meant, "
            f"put its new sum there (sha256sum {path.name})"
        )


def _read(folder: Path) -> list[tuple[str, str]]:
    """Return (digest, name) of each line."""
    file = folder / SUMS
    if not file.is_file():
        return []
    lines = file.read_bytes().decode(errors="replace").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if match is None:
            raise RunError(f"{file}: line {number}: expected a SHA-256, two spaces and a name")
        entries.append((match[1], match[2]))
    return entries


def _listed(path: Path) -> set[str]:
    return {sha256 for sha256, name in _read(path.parent) if name == path.name}


def _list(path: Path, digests: set[str]) -> None:
    others = [(sha256, name) for sha256, name in _read(path.parent) if name != path.name]
    lines = others + [(sha256, path.name) for sha256 in sorted(digests)]
    with atomic_write(path.with_name(SUMS)) as temporary:
        text = "".join(f"{sha256}  {name}\n" for sha256, name in lines)
        temporary.write_text(text, encoding="ascii")
