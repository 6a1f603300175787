"""Shared parts of the benchmarks: measuring in turn, rows of results, peak memory of a process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from train.machine import PROJECT

Result = TypeVar("Result")


def in_turn(measures: Mapping[str, Callable[[], Result]], runs: int) -> dict[str, list[Result]]:
    """Call the functions one after the other, once per run, and collect what each returns.

    A disturbance of the machine then affects everything that is compared.
    """
    found: dict[str, list[Result]] = {name: [] for name in measures}
    console = Console(stderr=True, markup=False)
    turns = [*measures] * runs
    for name in track(turns, "measuring", console=console, disable=not console.is_terminal):
        found[name].append(measures[name]())
    return found


def in_own_process(module: str, *arguments: object) -> Any:
    """Run a benchmark's module as a process; return the JSON in the last line that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(
    name: str,
    unit: str,
    values: Sequence[float],
    ratio_to: str | None = None,
    others: Sequence[float] = (),
) -> dict[str, Any]:
    """Make a row of a benchmark's result.

    Parameters
    ----------
    name : str
        Mode, subject, precision or kind, size and threads.
    unit : str
        Unit of the values.
    values : sequence of float
        One for each run; the row holds their median.
    ratio_to : str, optional
        Name of the row that this one is compared with.
    others : sequence of float
        Values of that row. The ratio is the median over the runs of ``values / others``.
    """
    ratio = None
    if ratio_to is not None:
        ratio = statistics.median(value / other for value, other in zip(values, others))
    return {
        "name": name,
        "value": statistics.median(values),
        "unit": unit,
        "ratio_to": ratio_to,
        "ratio": ratio,
        "runs": len(values),
    }
