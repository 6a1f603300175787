"""Learning curves of one or more runs, from their ``log.jsonl``: loss, learning rate and mIoU."""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from configs.loader import dump
from configs.schema import Experiment
from train.atomic import atomic_write
from train.errors import RunError
from train.run_dir import RunDir
from train.run_log import LOG

DPI = 110
KEYS = ("loss", "lr", "train_miou", "val_miou")  # keys of a record that are drawn
UNITS = {"train_miou": 100, "val_miou": 100}  # shown in percent
Curve = tuple[array, array]  # iterations and values


def draw_curves(runs: Sequence[Path], out: Path) -> None:
    """Draw runs into one PNG, over the iterations.

    Runs whose configurations differ in the seed only are drawn as one line, their mean, in a band
    from the lowest to the highest value.

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
    figure = Figure(figsize=(9, 11))  # needs no screen
    loss, rate, score = figure.subplots(3, 1, sharex=True)
    colors = itertools.cycle(rcParams["axes.prop_cycle"].by_key()["color"])
    for color, group in zip(colors, by_seed(runs)):
        read = [read_curves(run) for run in group]
        curves = {key: [curves[key] for curves in read] for key in KEYS}
        label = group[0].name + (f" and {len(group) - 1} more seeds" if len(group) > 1 else "")
        _line(loss, curves["loss"], color=color, label=label)
        _line(rate, curves["lr"], color=color, label=label)
        _line(score, curves["train_miou"], color=color, alpha=0.5, linestyle=":")
        _line(score, curves["val_miou"], color=color, label=label, marker="o", markersize=3)
    loss.set_ylabel("loss")
    loss.set_yscale("log")
    rate.set_ylabel("learning rate")
    score.set_ylabel("mIoU, % (dotted: on training crops)")
    score.set_xlabel("iteration")
    for axes in (loss, rate, score):
        axes.grid(alpha=0.3)
    loss.legend()
    figure.tight_layout()
    with atomic_write(out) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def read_curves(run: Path) -> dict[str, Curve]:
    """Read the curve of each of `KEYS` from a run's log, 16 bytes a point."""
    curves: dict[str, Curve] = {key: (array("d"), array("d")) for key in KEYS}
    file = run / LOG
    record = None
    for number, record in enumerate(RunDir(run).log.records(), start=1):
        try:
            for key, (iterations, values) in curves.items():
                if record.get(key) is not None:
                    values.append(UNITS.get(key, 1) * record[key])
                    iterations.append(record["iteration"])
        except (TypeError, OverflowError):
            raise RunError(f"{file}: line {number}: {key}: expected a number") from None
    if record is None:
        raise RunError(f"{file}: it is empty; nothing was logged yet")
    return curves


def by_seed(runs: Sequence[Path]) -> list[list[Path]]:
    """Group the runs that differ in the seed only; a folder with only a log is its own group."""
    groups: dict[str, list[Path]] = {}
    for run in runs:
        alike = str(run)
        if RunDir(run).begun():
            config = RunDir(run).load()[0]
            alike = dump(dataclasses.replace(config, experiment=Experiment()))
        groups.setdefault(alike, []).append(run)
    return list(groups.values())


def band(curves: Sequence[Curve]) -> np.ndarray:
    """Return (4, n): the iterations of all curves; the mean, lowest and highest value there."""
    points = [dict(zip(*curve)) for curve in curves]
    shared = sorted(set.intersection(*map(set, points)))
    values = np.array([[one[iteration] for iteration in shared] for one in points])
    return np.array([shared, values.mean(axis=0), values.min(axis=0), values.max(axis=0)])


def _line(axes: Axes, curves: Sequence[Curve], **style: object) -> None:
    iterations, mean, lowest, highest = band(curves)
    if iterations.size:
        axes.plot(iterations, mean, **style)
    if len(curves) > 1:
        axes.fill_between(iterations, lowest, highest, color=style["color"], alpha=0.2)
