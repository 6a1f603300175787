"""Write a benchmark's archive, and list every fault of one."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_iter.errors import DataError
from tools.shared.parallel import in_threads
from tools.submission.benchmarks import Benchmark, name_all
from train.atomic import atomic_write, check_room

Reader = Callable[[], bytes]
MEMBER_BYTES = 1024  # upper bound per picture beyond its own bytes: headers, and a tar's padding

# What broken archives and members make zipfile, tarfile and Pillow raise; RuntimeError: a password
# is needed, or an unknown compression; ValueError: a name that is no text.
UNREADABLE = (
    OSError, EOFError, SyntaxError, RuntimeError, ValueError, struct.error,
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError,
)  # fmt: skip


class SubmissionError(DataError):
    """An archive that its benchmark would not accept; ``problems`` are the reasons."""

    def __init__(self, summary: str, problems: list[str]):
        super().__init__(f"{summary}: {len(problems)} problem{'s' * (len(problems) > 1)}")
        self.problems = problems


def check_frames(out: Path, benchmark: Benchmark, frames: Collection[str]) -> None:
    """Check all names before the work.

    Raises ``SubmissionError`` if pictures of these frames cannot be a submission, and ``DataError``
    if ``out`` does not have the suffix of the benchmark's archives.
    """
    if out.suffix != benchmark.archive:
        raise DataError(f"{out}: expected a name that ends in {benchmark.archive}")
    members = {benchmark.member(frame): frame for frame in frames}
    odd = {member for member in members if benchmark.frame(member) is None}
    problems = name_all(f"not named like {benchmark.example}", odd)
    named = {frame for member, frame in members.items() if member not in odd}
    problems += benchmark.set_problems(named, set())
    if problems:
        raise SubmissionError(f"{out}: not written", problems)


def write_archive(
    out: Path,
    benchmark: Benchmark,
    pictures: Mapping[str, Callable[[], np.ndarray]],
    threads: int | None = None,
) -> None:
    """Write the pictures of frames as a benchmark's archive, checked before it gets its name.

    Parameters
    ----------
    out : Path
        Final name of the archive.
    pictures : mapping of str to callable
        Returns each frame's picture, (H, W) uint8; called when it is written.
    threads : int, optional
        Number of pictures that are made at a time; by default one per core.

    Raises
    ------
    SubmissionError
        The benchmark would not accept the archive; it is then not written.
    RunError
        The disk has no room for it.
    """
    frames = sorted(pictures)
    encoded = in_threads(
        lambda frame: benchmark.encode(pictures[frame]()), frames, "Encoding", threads
    )
    room = sum(map(len, encoded)) + len(encoded) * MEMBER_BYTES
    check_room(out, room, f"{len(encoded)} pictures take")
    with atomic_write(out) as temporary:
        add = _add_to_zip if benchmark.archive == ".zip" else _add_to_tar
        add(temporary, {benchmark.member(frame): png for frame, png in zip(frames, encoded)})
        problems = check_archive(temporary, benchmark)
        if problems:
            raise SubmissionError(f"{out}: not written", problems)


def _add_to_zip(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNGs are packed already
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # a fixed date: the same pictures give the same file
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)


def _add_to_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def check_archive(path: Path, benchmark: Benchmark, threads: int | None = None) -> list[str]:
    """List every fault of an archive, also of other programs; empty if there is none.

    Raises ``DataError`` if the file is not an archive.
    """
    with _open(path, benchmark.archive) as members:
        names = Counter(name for name, _ in members)
        problems = [f"{name}: {count} times" for name, count in names.items() if count > 1]
        checked = in_threads(
            lambda member: _check_member(benchmark, *member), members, "Checking", threads
        )
    frames: dict[str, str] = {}
    values: set[int] = set()
    for (name, _), (found, present) in zip(members, checked):
        problems += [f"{name}: {problem}" for problem in found]
        values |= present
        frame = benchmark.frame(name)
        if frame and frames.setdefault(frame, name) != name:
            problems.append(f"{name}: {frames[frame]} is of the same frame")
    return problems + benchmark.set_problems(frames.keys(), values)


def _check_member(benchmark: Benchmark, name: str, read: Reader) -> tuple[list[str], set[int]]:
    """Return a member's problems and the values that its pixels hold."""
    frame = benchmark.frame(name)
    if frame is None:
        return [f"not expected in the archive; pictures are named like {benchmark.example}"], set()
    try:
        with Image.open(io.BytesIO(read())) as image:
            pixels = np.asarray(image)
            one_byte = pixels.dtype == np.uint8  # np.unique would sort the pixels
            values = np.flatnonzero(np.bincount(pixels.ravel())) if one_byte else np.unique(pixels)
            problems = benchmark.picture_problems(frame, image, values)
            return problems, set(values.tolist()) if image.mode == benchmark.mode else set()
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        return [f"cannot be read ({error})"], set()


@contextmanager
def _open(path: Path, kind: str) -> Iterator[list[tuple[str, Reader]]]:
    """Open a zip or tar; yields name and reader of each file in it."""
    lock = threading.Lock()  # an archive has one read position

    def reader(read: Callable[[Any], bytes], info: Any) -> Reader:
        def locked() -> bytes:
            with lock:
                return read(info)

        return locked

    def from_tar(info: tarfile.TarInfo) -> bytes:
        file = tar.extractfile(info) if info.isreg() else None
        if file is None:
            raise OSError("a link or device, expected a file")
        return file.read()

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with ExitStack() as stack:
        try:
            if kind == ".zip":
                archive = stack.enter_context(zipfile.ZipFile(path))
                packed = [info for info in archive.infolist() if not info.is_dir()]
                members = [(info.filename, reader(archive.read, info)) for info in packed]
            else:
                tar = stack.enter_context(tarfile.open(path))
                filed = [info for info in tar.getmembers() if not info.isdir()]
                members = [(info.name.removeprefix("./"), reader(from_tar, info)) for info in filed]
        except UNREADABLE as error:
            why = " ".join(str(error).split())  # tarfile lists the formats that it tried
            raise DataError(f"{path}: not a whole {kind[1:]} archive ({why})") from None
        yield members
