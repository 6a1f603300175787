"""Learning curves of one or more runs, from their ``log.jsonl``: loss, learning rate and mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a screen

import matplotlib.pyplot as plt

from train.atomic import atomic_write
from train.run_dir import RunDir

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
        records = RunDir(run).read_log()
        _line(loss, records, "loss", color=color, label=run.name)
        _line(rate, records, "lr", color=color, label=run.name)
        _line(score, records, "train_miou", 100, color=color, alpha=0.5, linestyle=":")
        style = {"marker": "o", "markersize": 3}
        _line(score, records, "val_miou", 100, color=color, label=run.name, **style)
    loss.set_ylabel("loss")
    loss.set_yscale("log")
    rate.set_ylabel("learning rate")
    score.set_ylabel("mIoU, % (dotted: on training crops)")
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


def _line(
    axes: plt.Axes, records: list[dict[str, Any]], key: str, unit: float = 1, **style: Any
) -> None:
    points = [(r["iteration"], unit * r[key]) for r in records if r.get(key) is not None]
    if points:
        axes.plot(*zip(*points), **style)


def _colors():
    while True:
        yield from plt.rcParams["axes.prop_cycle"].by_key()["color"]
