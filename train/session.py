"""One start of a run: what has to be in place around the solver while it trains."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.schema import Config

from .distributed.workers import Workers
from .run_dir import RunDir
from .solver import Solver
from .stop import SAVED, StopWish


def train(
    config: Config,
    dataset: DatasetSpec,
    data_root: Path,
    out: Path,
    contexts: list[mx.Context],
    *,
    stop: StopWish,
    resume: bool = False,
    allow_changes: bool = False,
) -> int:
    """Train ``config`` in the run folder ``out``.

    Parameters
    ----------
    config, dataset, data_root, contexts
        As for :class:`train.solver.Solver`.
    out : Path
        The run folder.
    stop : StopWish
        When to save and end.
    resume : bool
        Go on from the newest checkpoint in it, if there is one.
    allow_changes : bool
        Resume with another configuration, data or number of devices, too.

    Returns
    -------
    int
        0: all epochs are done; 75: saved before, start again to go on.
    """
    run = RunDir(out)
    with Workers(config.solver.kvstore) as workers:
        solver = Solver(config, dataset, data_root, contexts, run, workers)
        opened = run.open(config, dataset, resume, allow_changes)
        with opened if workers.rank == 0 else run.join():
            return 0 if solver.fit(stop, allow_changes) else SAVED
