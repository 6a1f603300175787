"""Files that appear under their final name only when whole; their digests; locks of folders."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("train")
TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}\.\w+")  # the names that atomic_write gives
SHOWN = 40  # characters of a file's name that its temporary one begins with
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it when the block ends well.

    An existing file is replaced in one step; if the block raises, or the process dies, it stays
    as it was. File and folder are synced, so the new content survives a power cut too.

    Parameters
    ----------
    path : path-like
        The final name; its folder is made where it is missing.

    Yields
    ------
    Path
        A temporary file in the same folder, with the same suffix (libraries choose a format by
        it). It exists and is empty.

    Raises
    ------
    OSError
        The folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    prefix = f".{path.stem[:SHOWN]}-"
    temporary, handle = None, -1
    made = [folder for folder in path.parents if not folder.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(path.parent)) from None
    _clear_once(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # tells that its writer lives
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        with suppress(OSError):  # another's file may lie in it by now
            for folder in made:
                folder.rmdir()
        if isinstance(error, OSError) and error.errno and _is_ours(error.filename, prefix):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        if handle >= 0:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in a folder; what a living one writes stays.

    Where the file system has no locks, nothing tells the two apart, and all stays.
    """
    for file in folder.glob(".*"):
        if TEMPORARY.fullmatch(file.name):
            with suppress(OSError), file.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()


@functools.lru_cache(maxsize=100)
def _clear_once(folder: Path) -> None:
    """Remove leftovers when this process first writes into a folder."""
    remove_leftovers(folder)


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
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning(
                "%s: this file system has no locks (%s): see to it that no second job writes there",
                path, error.strerror,
            )  # fmt: skip
        yield
    finally:
        os.close(handle)


def _is_ours(filename: object, prefix: str) -> bool:
    """Whether an error names no file (a full disk), or the temporary one."""
    return filename is None or Path(str(filename)).name.startswith(prefix)


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
