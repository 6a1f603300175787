"""Learning curves of one or more runs, from their ``log.jsonl``: loss, learning rate and mIoU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a screen

import matplotlib.pyplot as plt

from train.errors import RunError
from train.atomic import atomic_write

DPI = 110


def draw_curves(runs: Sequence[Path], out: Path) -> None:
    """Draw runs over each other into a PNG, iterations to the right.

    Parameters
    ----------
    runs : sequence of Path
        Run folders; each one's name labels its lines.
    out : Path
        The picture to write.

    Raises
    ------
    RunError
        A folder has no log, or a log cannot be read.
    """
    figure, (loss, rate, score) = plt.subplots(3, 1, figsize=(9, 11), sharex=True)
    for color, run in zip(_colors(), runs):
        records = read_log(run)
        _line(loss, records, "loss", color=color, label=run.name)
        _line(rate, records, "lr", color=color, label=run.name)
        _line(score, records, "train_miou", color=color, alpha=0.5, linestyle=":")
        _line(score, records, "val_miou", color=color, label=run.name, marker="o", markersize=3)
    loss.set_ylabel("loss")
    loss.set_yscale("log")
    rate.set_ylabel("learning rate")
    score.set_ylabel("mIoU (dotted: on training crops)")
    score.set_xlabel("iteration")
    for axes in (loss, rate, score):
        axes.grid(alpha=0.3)
    loss.legend()
    figure.tight_layout()
    try:
        with atomic_write(out) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
    finally:
        plt.close(figure)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read ``log.jsonl``; a validation gets the iteration of the training record before it."""
    file = run / "log.jsonl"
    if not file.is_file():
        raise RunError(f"{run}: not a run folder: it has no log.jsonl")
    records, iteration = [], 0
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            iteration = record.setdefault("iteration", iteration)
        except (ValueError, AttributeError):
            raise RunError(f"{file}: line {number}: expected a JSON object") from None
        records.append(record)
    if not records:
        raise RunError(f"{file}: it is empty; nothing was logged yet")
    return records


def _line(axes: plt.Axes, records: list[dict[str, Any]], key: str, **style: Any) -> None:
    points = [(r["iteration"], r[key]) for r in records if r.get(key) is not None]
    if points:
        axes.plot(*zip(*points), **style)


def _colors():
    while True:
        yield from plt.rcParams["axes.prop_cycle"].by_key()["color"]
