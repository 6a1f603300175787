"""How fast training is, what it needs, and how much of it is not the network's own work."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import mxnet as mx

from configs.datasets import load_dataset
from configs.loader import load_config
from tools import make_toy_data
from train.machine import allowed_cores
from train.reporter import Reporter
from train.run_dir import RunDir
from train.solver import Solver
from train.workers import Workers

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "toy.cfg"
RUNS = 5
ITERATIONS = 20  # of a run; the last computes the training mIoU, as solver.log_every = 20 has it
CONTEXTS = (1, 2)


def rows(args: Namespace) -> list[dict[str, Any]]:
    """Train the toy network on generated streets, with 1 and with 2 CPU contexts.

    ``train_iterations`` is the rate of the trainer's whole loop: waiting for the batch, schedule,
    forward, backward, update, loss and metrics. ``train_outside`` is the share of that loop's time
    that bare forward, backward and update do not explain; the two are timed in turn, run by run.
    ``train_peak_memory`` is the highest of the process so far.
    """
    runs = getattr(args, "runs", None) or RUNS
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_toy_data.main(["--out", str(data), "--frames", "12"])
        for count in CONTEXTS:
            found += _measure(data, Path(folder) / str(count), count, runs)
    return found


def _measure(data: Path, out: Path, count: int, runs: int) -> list[dict[str, Any]]:
    # Closer patches give an epoch more batches than a run takes.
    options = ["data.val_split=", "data.patch_stride=8", f"solver.log_every={ITERATIONS}"]
    config = load_config(CONFIG, options)
    dataset = load_dataset(config.data.dataset)
    devices = [mx.cpu(number) for number in range(count)]
    out.mkdir()
    solver = Solver(config, dataset, data, devices, RunDir(out), Workers(config.solver.kvstore))
    solver.start()
    whole, outside = [], []
    with Reporter(None, 1, solver.iterations, 0) as solver.reporter:
        for run in range(runs + 1):
            loop, bare = _whole_loop(solver), _bare_loop(solver)
            if run:  # the first one loads libraries and allocates
                whole.append(loop)
                outside.append(100 * (1 - bare / loop))
    solver.batches.close()
    name = f"toy_{count}contexts_{allowed_cores()}threads"
    rate = ITERATIONS / statistics.median(whole)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        _row(f"train_iterations_{name}", rate, "iterations/s", runs),
        _row(f"train_samples_{name}", rate * config.solver.batch_size, "samples/s", runs),
        _row(f"train_outside_{name}", statistics.median(outside), "% of the time", runs),
        _row(f"train_peak_memory_{name}", memory, "MB", 1),
    ]


def _whole_loop(solver: Solver) -> float:
    """Time the trainer's own loop in seconds, with batches already on their way."""
    solver.batches.seek(0, 0)
    solver.progress.batch = 0
    batch = solver.batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(ITERATIONS):
        solver.step(batch)
        batch = solver.batches.next()
    mx.nd.waitall()
    return time.perf_counter() - start


def _bare_loop(solver: Solver) -> float:
    """Time forward, backward and update alone, in seconds."""
    batch = solver.batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for iteration in range(ITERATIONS):
        solver.module.step(batch, iteration)
    mx.nd.waitall()
    return time.perf_counter() - start


def _row(name: str, value: float, unit: str, runs: int) -> dict[str, Any]:
    return {
        "name": name, "value": round(value, 3), "unit": unit, "ratio_to": None, "ratio": None,
        "runs": runs,
    }  # fmt: skip
