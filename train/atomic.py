"""Files and folders that appear under their final name only when whole; digests; locks; room."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RunError

log = logging.getLogger("train")
PART = ".part"  # marks a temporary name, so that no file of the user's is taken for one
TEMPORARY = re.compile(rf"\..+-[a-z0-9_]{{8}}\{PART}(\.\w+)?")
SHOWN = 40  # characters of a name that its temporary one begins with
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it when the block ends well.

    An existing file is replaced in one step. If the block raises, or the process dies, the file
    keeps its old content. File and folder are synced, so the new content survives a power cut.

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
    suffix = PART + (path.suffix if len(path.suffix) <= SHOWN else "")
    temporary, handle = None, -1
    with new_folder(path.parent):
        try:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
            temporary = Path(name)
            _mark_alive(handle)
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from colleagues
            temporary.replace(path)
            _sync(path.parent)
        except BaseException as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and _is_ours(error.filename, prefix):
                error.filename = str(path)  # the name that the user knows
            raise
        finally:
            if handle >= 0:
                os.close(handle)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name, and rename it when the block ends well.

    Parameters
    ----------
    path : Path
        The final name, of nothing or of an empty folder; its parent is made where it is missing.

    Yields
    ------
    Path
        A place for a folder of the same name, beside the final one. The block makes it.
    """
    prefix = f".{path.name[:SHOWN]}-"
    with new_folder(path.parent), tempfile.TemporaryDirectory(PART, prefix, path.parent) as folder:
        handle = os.open(folder, os.O_RDONLY)
        try:
            _mark_alive(handle)
            made = Path(folder) / path.name
            yield made
            made.rename(path)
        finally:
            os.close(handle)


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder of results where it is missing, and remove leftovers from it.

    Where the block fails, this folder and its parents go again, unless something lies in them or
    they were there before.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]  # the deepest first
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(path)) from None
    _clear_once(path)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # another process may have put a file in it
            for folder in made:
                folder.rmdir()
        raise


def _mark_alive(handle: int) -> None:
    """Lock a temporary file or folder, as a sign that its writer is alive."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder; those of living ones stay.

    On a file system without locks the two cannot be distinguished, and all files stay.
    """
    for left in folder.glob(".*"):
        if not TEMPORARY.fullmatch(left.name):
            continue
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                os.close(handle)


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


def free_room(path: Path) -> int:
    """Return the free bytes of the disk where ``path`` is to be; not all of its folders need be."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def check_room(path: Path, needed: int, what: str) -> None:
    """Look at the free space before work whose result is known to need so much.

    Parameters
    ----------
    path : Path
        The result.
    needed : int
        Bytes.
    what : str
        What takes them, as the sentence begins: "packing 9 frames takes about ...".

    Raises
    ------
    RunError
        Less is free.
    """
    free = free_room(path)
    if needed > free:
        raise RunError(
            f"{path}: {what} {_in_units(needed)} of disk space, and {_in_units(free)} are free"
        )


def _in_units(count: int) -> str:
    """Write a number of bytes for people."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (0, "kB")) if count >= u)
    return f"{count / (unit or 1e3):.1f} {name}"


@contextmanager
def locked(path: Path, taken: Exception) -> Iterator[None]:
    """Lock a folder, or a lock file, for this process; raise ``taken`` if another has the lock.

    A missing lock file is made and stays. (Network file systems can't lock a folder.) The lock ends
    with the process, however the process ends.
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
