"""Checkpoints: written whole, checked before use, and removed only after the next one is whole.

A checkpoint is two files and an entry in ``checkpoints.json``. ``model-0003.params`` is written
after three epochs, ``iteration-0000450.params`` within an epoch (MXNet's format: parameters and BN
statistics). The ``.state`` file beside it holds the optimiser's momentum and, with several devices,
each device's own BN statistics. The entry holds the files' sizes, their SHA-256 and the progress of
training. An entry is added after its files are whole and removed before them, so a process that is
killed at any moment leaves a good checkpoint. Nothing here is pickled: reading a run folder runs no
code from it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_iter.sealed import seal, unseal

from .atomic import atomic_write, check_room, digest
from .errors import RunError
from .params import Params, array_bytes, read_arrays, save_arrays

log = logging.getLogger("train")
MANIFEST = "checkpoints.json"
SUFFIXES = (".params", ".state")
EPOCH = "model-"  # prefix of checkpoints at the end of an epoch, as MXNet names them
ITERATION = "iteration-"  # prefix of checkpoints within an epoch


@dataclass
class Progress:
    """The progress of a training: its state except for the arrays."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the next epoch
    losses: list[float] = field(default_factory=list)  # since the last line of the log
    confusion: list[list[int]] = field(default_factory=list)  # of the current epoch
    log_bytes: int = 0  # length of log.jsonl
    val_miou: float | None = None  # of the last finished epoch
    best: str | None = None  # name of the checkpoint with the highest val_miou
    best_miou: float | None = None
    patches: int = 0  # of an epoch; 0: begun before this was noted
    batches: int = 0  # of an epoch
    devices: int = 0
    workers: int = 1
    data: str = ""  # digest of the training frames' names and sizes; empty: not noted
    labels: str = ""  # digest of the training labels' content; empty: not noted
    validated: int = 0  # frames of a validation that was broken off
    val_confusion: list[list[int]] = field(default_factory=list)  # of those frames
    exploded: int = 0  # number of the latest consecutive iterations with a much too high loss

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return self.epoch * self.batches + self.batch

    @property
    def place(self) -> tuple[int, int, int]:
        """The part of the progress that is the same in all synchronous workers."""
        return self.epoch, self.batch, self.batches

    @property
    def best_epoch(self) -> int | None:
        """The epoch after which :attr:`val_miou` was highest."""
        return int(self.best.removeprefix(EPOCH)) if self.best else None

    def set_best(self, epoch: int) -> None:
        """Record the best epoch; 0 means none."""
        self.best = f"{EPOCH}{epoch:04d}" if epoch else None

    @property
    def name(self) -> str:
        """Of this place's checkpoint."""
        if self.batch not in (0, self.batches):
            return f"{ITERATION}{self.iteration:07d}"
        return f"{EPOCH}{self.epoch + (self.batch > 0):04d}"


def check_first(folder: Path, params: tuple[Params, Params]) -> None:
    """Raise ``RunError`` where the disk has no room for two checkpoints.

    The one before goes when the next is whole. Each has the parameters and, as large, the momentum.
    """
    needed = 4 * sum(map(array_bytes, params))
    check_room(folder, needed, "two checkpoints, as many as there are at a time, take about")


def begin(folder: Path) -> None:
    """Write an empty manifest.

    Parameters without a manifest can then not be mistaken for an interrupted first save.
    """
    write_manifest(folder, [])


def save(
    folder: Path, name: str, params: Params, state: Params, progress: Progress, keep: int
) -> None:
    """Write the checkpoint ``name``; then remove all but the best and the ``keep`` newest.

    Raises
    ------
    RunError
        It could not be written whole (a full disk); the earlier ones are unharmed.
    """
    entries = [entry for entry in read_manifest(folder) if entry["name"] != name]
    files = {
        suffix: save_arrays(folder / f"{name}{suffix}", arrays)
        for suffix, arrays in zip(SUFFIXES, (params, state))
    }
    entries.append({"name": name, "files": files, "progress": dataclasses.asdict(progress)})
    _keep(folder, entries, progress.best, keep)


def update_newest(folder: Path, progress: Progress, keep: int) -> None:
    """Record the progress since the newest checkpoint, without new arrays."""
    entries = read_manifest(folder)
    entries[-1]["progress"] = dataclasses.asdict(progress)
    _keep(folder, entries, progress.best, keep)


def load_newest(folder: Path) -> tuple[Params, Params, Progress]:
    """Read the newest whole checkpoint; each skipped one is logged with the reason.

    Raises
    ------
    RunError
        There is none.
    """
    for entry in reversed(read_manifest(folder)):
        try:
            arrays = [_load_arrays(folder, entry, suffix) for suffix in SUFFIXES]
        except RunError as error:
            log.warning("%s; falling back to the checkpoint before it", error)
            continue
        return arrays[0], arrays[1], Progress(**entry["progress"])
    raise RunError(f"{folder}: there is no whole checkpoint to resume from")


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """List the entries of ``checkpoints.json``, oldest first; empty before the first start.

    Raises
    ------
    RunError
        It is damaged, or it is missing although there are parameters.
    """
    file = folder / MANIFEST
    if not file.is_file():
        if params := sorted(folder.glob("*.params")):
            raise RunError(
                f"{file} is missing, which says where {params[-1].name} stands: bring it back, or "
                f"begin a run in another folder with --set solver.init_from={params[-1]}"
            )
        return []
    try:
        text = file.read_text(encoding="utf-8")
        # Runs begun before the list had a digest hold the bare list.
        entries = json.loads(text) if text.lstrip().startswith("[") else unseal(text)
        if not isinstance(entries, list):
            raise TypeError(f"found {type(entries).__name__}")
        for entry in entries:
            Progress(**entry["progress"])
            assured = [entry["files"][s][key] for s in SUFFIXES for key in ("bytes", "sha256")]
            if not (entry["name"] and all(assured)):
                raise ValueError("an entry is incomplete")
        return entries
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{file}: damaged: not a list of checkpoints ({error})") from None


def check_same(folder: Path, before: Progress, now: dict[str, int | str]) -> None:
    """Raise ``RunError`` if a run would continue with other data, devices or workers."""
    for what, count in now.items():
        found = getattr(before, what)
        if found not in (0, "", count):
            if what in ("data", "labels"):
                others = {
                    "data": "training images: their names or sizes differ",
                    "labels": "training labels: their content differs",
                }[what]
                raise RunError(
                    f"{folder}: the run was begun with other {others}; resume with "
                    "--allow-changes if that is meant"
                )
            where = " in an epoch" if what in ("patches", "batches") else ""
            raise RunError(
                f"{folder}: the run was begun with {found} {what}{where}, now there are {count}; "
                "resume with --allow-changes if that is meant"
            )


def _keep(folder: Path, entries: list[dict[str, Any]], best: str | None, keep: int) -> None:
    """Write the manifest with the best and the newest entries; then remove the others' files."""
    kept = [entry for entry in entries[:-keep] if entry["name"] == best] + entries[-keep:]
    write_manifest(folder, kept)
    names = {entry["name"] for entry in kept}
    pruned = {entry["name"] for entry in entries} - names
    for file in folder.glob("*"):
        # Files within an epoch without an entry come from a job that was killed while it saved.
        ours = file.stem in pruned or file.stem.startswith(ITERATION)
        if ours and file.suffix in SUFFIXES and file.stem not in names:
            file.unlink()


def write_manifest(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Write ``checkpoints.json`` whole, with its digest."""
    with atomic_write(folder / MANIFEST) as temporary:
        temporary.write_text(seal(entries, indent=1), encoding="utf-8")


def check_params(folder: Path, name: str) -> bool:
    """Check the parameters of a checkpoint against the manifest.

    Returns whether the manifest has the checkpoint.

    Raises
    ------
    RunError
        The file, or the manifest, is damaged.
    """
    if (folder / MANIFEST).is_file():
        for entry in read_manifest(folder):
            if entry["name"] == name:
                _check_file(folder, entry, ".params")
                return True
    return False


def _load_arrays(folder: Path, entry: dict[str, Any], suffix: str) -> Params:
    return read_arrays(_check_file(folder, entry, suffix))


def _check_file(folder: Path, entry: dict[str, Any], suffix: str) -> Path:
    path = folder / f"{entry['name']}{suffix}"
    expected = entry["files"][suffix]
    if not path.is_file():
        raise RunError(f"{path}: the file is missing")
    if path.stat().st_size != expected["bytes"]:
        raise RunError(
            f"{path}: damaged: {path.stat().st_size} bytes, expected {expected['bytes']}"
        )
    if digest(path) != expected["sha256"]:
        raise RunError(f"{path}: damaged: its SHA-256 is not the one in {MANIFEST}")
    return path
