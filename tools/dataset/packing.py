"""Pack the frames of a split into a prepared folder; an interrupted pack continues.

Shards are the unit of progress: each is written under a temporary name, synced, renamed, and then
recorded in ``.SPLIT-0000.json``. The manifest, written last, makes the split usable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_iter.datasets import Sample
from data_iter.errors import DataError
from data_iter.frames import FileFrames
from data_iter.records import (
    MANIFEST,
    TILE,
    VERSION,
    encode_frame,
    manifest_file,
    read_manifest,
    write_records,
)
from data_iter.sealed import seal, unseal
from train.atomic import atomic_write, check_room, digest, locked, new_folder, remove_leftovers
from train.machine import allowed_cores

FRAMES_PER_SHARD = 32
SPARE_ROOM = 1.1  # the estimate of the size comes from a few frames
PROBES = 4


def pack(
    samples: list[Sample],
    frames: FileFrames,
    out: Path,
    split: str,
    jpeg_quality: int | None,
    done: Callable[[int], None] = lambda count: None,
) -> int:
    """Pack all frames of a split; return the number of frames that this call packed.

    Parameters
    ----------
    samples, frames
        The split's files, and their reader.
    out : Path
        The prepared folder; other splits may be in it already.
    split : str
        Name of the split in the prepared folder.
    jpeg_quality : int, optional
        0..100; None keeps every bit of the image. Labels always keep theirs.
    done : callable
        Called with the number of frames that have just become whole.

    Raises
    ------
    DataError
        A frame or the record of an earlier pack cannot be read, or ``out`` holds another pack of
        the split. Whole shards stay, and the next call continues after them.
    RunError
        The disk has too little room.
    """
    settings = {"version": VERSION, "tile": TILE, "jpeg_quality": jpeg_quality}
    taken = DataError(f"{out}: another pack is writing into it")
    with new_folder(out), locked(out, taken), ThreadPoolExecutor(allowed_cores()) as pool:
        remove_leftovers(out)
        manifest = manifest_file(out, split)
        stem = manifest.name[: -len(MANIFEST)]
        wanted = _wanted_shards(samples, stem)
        if manifest.is_file():
            _check_same(manifest, read_manifest(out, split), settings, wanted)
            done(len(samples))
            return 0
        missing = [shard for shard in wanted if not _is_whole(out, shard, settings)]
        done(len(samples) - sum(len(shard["numbers"]) for shard in missing))
        _check_room(out, frames, missing, jpeg_quality)

        def encode(number: int) -> tuple[tuple[int, int], list[bytes]]:
            image, label = frames.read(number)
            return label.shape, encode_frame(image, label, jpeg_quality)

        for shard in missing:
            _write_shard(out, shard, settings, pool.map(encode, shard["numbers"]), done)
        _write_manifest(manifest, settings, [_progress_file(out, shard) for shard in wanted])
        for shard in wanted:
            _progress_file(out, shard).unlink()
        return sum(len(shard["numbers"]) for shard in missing)


def _wanted_shards(samples: list[Sample], stem: str) -> list[dict[str, Any]]:
    """Cut the split into shards; the files' sizes show whether the data set has changed since."""
    shards = []
    for begin in range(0, len(samples), FRAMES_PER_SHARD):
        part = samples[begin : begin + FRAMES_PER_SHARD]
        sources = [[s.name, s.image.stat().st_size, s.label.stat().st_size] for s in part]
        shards.append(
            {
                "file": f"{stem}-{begin // FRAMES_PER_SHARD:04d}.rec",
                "numbers": range(begin, begin + len(part)),
                "sources": sources,
            }
        )
    return shards


def _progress_file(out: Path, shard: dict[str, Any]) -> Path:
    return out / f".{Path(shard['file']).stem}.json"


def _is_whole(out: Path, shard: dict[str, Any], settings: dict[str, Any]) -> bool:
    file, rec = _progress_file(out, shard), out / shard["file"]
    if not (file.is_file() and rec.is_file() and rec.with_suffix(".idx").is_file()):
        return False
    try:
        record = unseal(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no crash cuts it: it was written in one step
        raise DataError(
            f"{file}: damaged ({error}): remove it, and its shard is packed again"
        ) from None
    return (
        record["settings"] == settings
        and record["shard"]["sources"] == shard["sources"]
        and rec.stat().st_size == record["shard"]["bytes"]
    )


def _check_same(
    manifest: Path, there: dict[str, Any], settings: dict[str, Any], wanted: list[dict[str, Any]]
) -> None:
    sources = [shard["sources"] for shard in there["shards"]]
    same = {name: there.get(name) for name in settings} == settings
    if not same or sources != [shard["sources"] for shard in wanted]:
        raise DataError(
            f"{manifest}: the split is already packed, with other settings or from other files; "
            "remove it or give another --out"
        )


def _check_room(
    out: Path, frames: FileFrames, missing: list[dict[str, Any]], jpeg_quality: int | None
) -> None:
    numbers = [number for shard in missing for number in shard["numbers"]]
    probes = numbers[:: -(-len(numbers) // PROBES)] if numbers else []
    sizes = [sum(map(len, encode_frame(*frames.read(number), jpeg_quality))) for number in probes]
    needed = int(SPARE_ROOM * len(numbers) * sum(sizes) / max(len(sizes), 1))
    check_room(out, needed, f"packing {len(numbers)} frames takes about")


def _write_shard(
    out: Path,
    shard: dict[str, Any],
    settings: dict[str, Any],
    encoded: Iterator[tuple[tuple[int, int], list[bytes]]],
    done: Callable[[int], None],
) -> None:
    rec = out / shard["file"]
    sizes: list[tuple[int, int]] = []

    def records() -> Iterator[list[bytes]]:
        for hw, frame in encoded:
            sizes.append(hw)
            yield frame
            done(1)

    temporary = rec.with_name(f".{rec.name}"), rec.with_name(f".{rec.stem}.idx")
    try:
        write_records(*temporary, records())
    except BaseException:
        for file in temporary:
            file.unlink(missing_ok=True)
        raise
    digests, length = [digest(file) for file in temporary], temporary[0].stat().st_size
    for file, final in zip(temporary, (rec, rec.with_suffix(".idx"))):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        file.replace(final)
    record = {
        "file": shard["file"],
        "sha256": digests[0],
        "idx_sha256": digests[1],
        "bytes": length,
        "sources": shard["sources"],
        "frames": [[name, hw] for (name, *_), hw in zip(shard["sources"], sizes)],
    }
    with atomic_write(_progress_file(out, shard)) as file:
        file.write_text(seal({"settings": settings, "shard": record}), encoding="utf-8")


def _write_manifest(manifest: Path, settings: dict[str, Any], progress: list[Path]) -> None:
    shards = [unseal(file.read_text(encoding="utf-8"))["shard"] for file in progress]
    with atomic_write(manifest) as file:
        file.write_text(seal(settings | {"shards": shards}), encoding="utf-8")


def damaged_files(root: Path, manifest: dict[str, Any]) -> list[str]:
    """Name the files of shards whose content has changed since packing."""
    wanted = [
        named
        for shard in manifest["shards"]
        for named in (
            (shard["file"], shard["sha256"]),
            (str(Path(shard["file"]).with_suffix(".idx")), shard["idx_sha256"]),
        )
    ]
    return [
        name
        for name, sha256 in wanted
        if not (root / name).is_file() or digest(root / name) != sha256
    ]
