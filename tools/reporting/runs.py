"""Compare runs: the differences of their configurations, and their results."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.schema import SECTIONS, Config
from train.atomic import atomic_write
from train.run_dir import RunDir

SCORES = (
    "best mIoU", "best epoch", "last mIoU", "epochs", "samples/s", "hours", "memory GB",
)  # fmt: skip


def compare(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Make a row for each run, the best score first.

    Returns
    -------
    list of dict
        ``run``, each key of the configuration that is not the same in all runs, and `SCORES`, mIoU
        from 0 to 1, the hours of all starts, and the most memory that the process (a GPU) held;
        None where a run has no such number yet.

    Raises
    ------
    RunError
        A folder is no run folder, or its log cannot be read.
    """
    configs = [_keys(RunDir(run).load()[0]) for run in runs]
    differing = [key for key in configs[0] if len({config[key] for config in configs}) > 1]
    rows = [
        {"run": str(run), **{key: config[key] for key in differing}, **_scores(RunDir(run))}
        for run, config in zip(runs, configs)
    ]
    return sorted(rows, key=lambda row: -(row[SCORES[0]] or 0))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows of :func:`compare`."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _keys(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{field.name}": getattr(getattr(config, section), field.name)
        for section in SECTIONS
        for field in dataclasses.fields(getattr(config, section))
    }


def _scores(run: RunDir) -> dict[str, Any]:
    records = run.log.read()
    scores = [(r["val_miou"], r["epoch"]) for r in records if r.get("val_miou") is not None]
    best = max(scores, key=lambda pair: pair[0], default=(None, None))
    rates = [r["samples_per_second"] for r in records if "samples_per_second" in r]
    seconds, memory = ([r[key] for r in records if key in r] for key in ("seconds", "memory_mb"))
    found = (
        *best,
        scores[-1][0] if scores else None,
        max((r["epoch"] for r in records if "epoch" in r), default=None),
        statistics.median(rates) if rates else None,
        sum(seconds) / 3600 if seconds else None,
        max(memory) / 1e3 if memory else None,
    )
    return dict(zip(SCORES, found))
