"""Train and score the runs of a study with the project's own commands, one process each."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.studies.plan import Row, Study
from tools.studies.results import append_result, read_results
from tools.studies.scoring import link_images, score_run
from train import machine
from train.atomic import locked
from train.errors import RunError
from train.stop import SAVED, handling

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


class RunFailed(Exception):  # noqa: N818
    """A command of a run ended with an error; the text is its last line."""


class StudyStopped(Exception):  # noqa: N818
    """The trainer has saved, because it or the study was asked to stop."""


class Unit(NamedTuple):
    """One training, and the rows whose scores come from its network."""

    network: str
    seed: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Place:
    """Where a study runs: its data, its folder, and which GPUs."""

    study: Study
    data_root: Path
    out: Path
    gpus: str | None

    def run_folder(self, unit: Unit) -> Path:
        """Folder of a unit's training."""
        return run_folder(self.out, self.study.row(unit.network), unit.seed)


def run_folder(out: Path, trained: Row, seed: int) -> Path:
    """Folder of a training. Its name holds the signature, so a changed row gets another folder."""
    return out / "runs" / f"{trained.name}-{seed}-{trained.signature}"


def prediction_folder(out: Path, study: Study, row: Row, seed: int) -> Path:
    """Folder of the label maps that a row's network predicts."""
    run = run_folder(out, study.row(row.network), seed)
    return run.with_name(f"{run.name}.{row.name}")


def units(study: Study) -> list[Unit]:
    """List the trainings: all rows of a seed before the next seed, so pairs are complete early."""
    return [
        Unit(row.name, seed, tuple(r for r in study.rows if r.network == row.name))
        for seed in study.seeds
        for row in study.rows
        if row.network == row.name
    ]


def missing(study: Study, out: Path, unit: Unit) -> list[Row]:
    """Rows of a unit without a result; a failed run is not a result."""
    results = read_results(out, study)
    return [
        row
        for row in unit.rows
        if results.get((row.name, unit.seed), {"failed": ""}).get("failed") is not None
    ]


def run_unit(place: Place, unit: Unit) -> list[str]:
    """Train and score one unit, and append a line for each row without a result.

    Returns
    -------
    list of str
        One sentence per row; empty where another process has the run.

    Raises
    ------
    StudyStopped
        The trainer saved and ended; the same call continues the run.
    """
    folder = place.run_folder(unit)
    folder.parent.mkdir(parents=True, exist_ok=True)
    taken = RunError(f"{folder}: another process runs it")
    try:
        with locked(folder.with_suffix(".lock"), taken):
            return [_result(place, unit, row) for row in missing(place.study, place.out, unit)]
    except RunError as error:
        if error is taken:
            return []
        raise


def _result(place: Place, unit: Unit, row: Row) -> str:
    line = {
        "study": place.study.name, "row": row.name, "seed": unit.seed,
        "signature": row.signature, "split": place.study.split,
        "metric": place.study.metric, "commit": machine.commit(),
    }  # fmt: skip
    start = time.monotonic()
    try:
        train(place, unit)
        trained = time.monotonic()
        line |= {"train_seconds": round(trained - start)}
        line |= score_run(place.study, row, predict(place, unit, row), place.data_root)
    except RunFailed as error:
        line |= {"failed": str(error)}
    append_result(place.out, line | {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    if "failed" in line:
        return f"{row.name}, seed {unit.seed}: failed: {line['failed']}"
    return f"{row.name}, seed {unit.seed}: {place.study.metric} {100 * line['score']:.2f} %"


def train(place: Place, unit: Unit, *options: str, folder: Path | None = None) -> None:
    """Train one unit with the ordinary trainer, or continue its training."""
    row = place.study.row(unit.network)
    folder = folder or place.run_folder(unit)
    settings = (*row.settings, f"experiment.seed={unit.seed}")
    _command(
        folder.with_suffix(".train.txt"), "train/train_model.py", "--config", str(row.base),
        "--data-root", str(place.data_root), "--out", str(folder), "--resume",
        *(f"--set={setting}" for setting in settings),
        *(["--gpus", place.gpus] if place.gpus else []), *options,
    )  # fmt: skip


def predict(place: Place, unit: Unit, row: Row) -> Path:
    """Predict the study's split with the parameters after the last epoch; return the folder."""
    run = place.run_folder(unit)
    out = prediction_folder(place.out, place.study, row, unit.seed)
    images = link_images(place.study, row, place.data_root, place.out / "images")
    _command(
        run.with_suffix(".predict.txt"), "tools/predict.py", str(images), "--model", str(run),
        "--epoch", str(row.config.solver.epochs), "--out", str(out), "--resume",
        *(["--crf"] if row.crf else []),
        *(["--save-probabilities"] if place.study.metric == "max_f" else []),
        *(["--gpus", place.gpus.partition(",")[0]] if place.gpus else []),
    )  # fmt: skip
    return out


def _command(output: Path, script: str, *arguments: str) -> None:
    """Run a command of the project; what it prints goes to ``output``."""
    command = [sys.executable, str(machine.PROJECT / script), *arguments]
    with output.open("wb") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        )  # fmt: skip
        with _passing_on(child):
            code = child.wait()
    if code in (SAVED, -signal.SIGTERM, -signal.SIGINT, 130):
        raise StudyStopped
    if code:
        said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RunFailed(f"{Path(script).name} ended with {code}: {' '.join(said[-1:])}")


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM to the child when this process is killed: the child saves."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen) -> Iterator[None]:
    """Forward the signals that ask this process to stop to the child."""

    def pass_on(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    with handling(pass_on, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        yield
