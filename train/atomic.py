"""Files that appear under their final name only when whole; their digests; locks of folders."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}\.\w+")  # the names that atomic_write gives


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it when the block ends well.

    An existing file is replaced in one step; if the block raises, or the process dies, it stays
    as it was. File and folder are synced, so the new content survives a power cut too.

    Parameters
    ----------
    path : path-like
        The final name; its folder must exist.

    Yields
    ------
    Path
        A temporary file in the same folder, with the same suffix (libraries choose a format by
        it). It exists and is empty.

    Raises
    ------
    OSError
        The folder is missing or cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and _is_ours(error.filename, path):
            error.filename = str(path)  # the name that the user knows
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in a folder that is :func:`locked`."""
    for file in folder.glob(".*"):
        if TEMPORARY.fullmatch(file.name):
            file.unlink()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


@contextmanager
def locked(path: Path, taken: Exception) -> Iterator[None]:
    """Hold a folder, or a lock file, for this process; raise ``taken`` where another has it.

    A lock file is made where it is missing, and stays. (Network file systems can't lock a folder.)
    The lock ends with the process, however that ends.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        yield
    finally:
        os.close(handle)


def _is_ours(filename: object, path: Path) -> bool:
    """Whether an error names no file (a full disk), or the temporary one."""
    return filename is None or Path(str(filename)).name.startswith(f".{path.stem}-")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask
