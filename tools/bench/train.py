"""Speed and memory of training, and the share of its time that the network does not compute."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench.measuring import in_own_process, in_turn, row
from tools.toy.folder import make
from train.machine import PROJECT, allowed_cores, peak_memory


class Case(NamedTuple):
    """One training that is measured."""

    name: str
    config: str
    options: tuple[str, ...]
    contexts: int
    iterations: int  # of a run; the last computes the training mIoU, more often than by default
    frame_hw: tuple[int, int]


# Closer patches give an epoch more batches than a run takes.
TOY = ("data.patch_stride=8",)
# One crop under fixed BN, from random weights, which a rate of 0 leaves as they are.
RESNET101 = (
    "data.crop_hw=544,544", "data.patches=grid", "data.patch_hw=400,400", "data.patch_stride=16",
    "solver.batch_size=1", "solver.init_from=none", "solver.lr=0",
)  # fmt: skip
CASES = (
    Case("toy", "toy", TOY, 1, 20, (128, 256)),
    Case("toy", "toy", TOY, 2, 20, (128, 256)),
    Case("resnet101_544", "duc_hdc", RESNET101, 1, 1, (544, 1088)),
)
FRAMES = 12


def rows(*, runs: int = 5, cases: Sequence[Case] = CASES) -> Iterator[dict[str, Any]]:
    """Train the toy network on 1 and 2 CPU contexts, and ResNet-101, on generated streets.

    ``train_bare`` is the rate of forward, backward and update alone, on one batch;
    ``train_iterations`` that of the trainer's whole loop, with waiting for the batch, loss and
    metrics, measured in turn with it. The data threads share the cores with the network here.
    ``train_outside`` is the share of the loop's time that is spent outside forward, backward and
    update; to measure it, the loop waits for them at every iteration. The toy network is the worst
    case: an iteration takes less than 0.1 s.
    """
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            # Threads are set before MXNet loads, so each case has a process of its own.
            yield from in_own_process(__spec__.name, folder, json.dumps(case), runs)


def work() -> None:
    """Be the process of one case: print its rows."""
    from train.runtime import contexts

    folder, text, runs = sys.argv[1:]
    case = Case(*json.loads(text))
    data = Path(folder) / "data"
    make(data, {"layout": "cityscapes", "frames": FRAMES, "seed": 0, "hw": case.frame_hw})
    rows = _measure(case, data, Path(folder) / "run", contexts(cpus=case.contexts), int(runs))
    print(json.dumps(rows))


def _measure(case: Case, data: Path, out: Path, devices: list, runs: int) -> list[dict[str, Any]]:
    from configs.datasets import load_dataset
    from configs.loader import load_config
    from train.data import open_batches
    from train.distributed.workers import Workers
    from train.reporter import Reporter
    from train.run_dir import RunDir
    from train.start import start
    from train.trainer import Trainer

    options = ["data.val_split=", f"solver.log_every={case.iterations}", *case.options]
    config = load_config(PROJECT / "configs" / f"{case.config}.cfg", options)
    dataset = load_dataset(config.data.dataset)
    out.mkdir()
    run, workers = RunDir(out), Workers(config.solver.kvstore)
    with closing(open_batches(config, dataset, data)) as batches:
        progress, module = start(config, dataset, batches, devices, run, workers, False)
        clock = TimedModule(module)
        with Reporter(None, 1, len(batches), 0) as reporter:
            parts = (progress, reporter, run, workers)
            trainer = Trainer(config, dataset, batches, None, devices[0], module, *parts)
            timed = Trainer(config, dataset, batches, None, devices[0], clock, *parts)
            measures = {
                "loop": partial(_whole_loop, trainer, case.iterations),
                "bare": partial(_bare_loop, module, batches, case.iterations),
                "outside": partial(_outside, timed, clock, case.iterations),
            }
            in_turn(measures, 1)  # loads libraries and allocates
            found = in_turn(measures, runs)
    return _rows(case, config.solver.batch_size, found)


def _rows(case: Case, batch: int, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    name = f"{case.name}_{case.contexts}contexts_{allowed_cores()}threads"
    rates = {
        what: [case.iterations / seconds for seconds in found[what]] for what in ("loop", "bare")
    }
    bare = f"train_bare_{name}"
    return [
        row(bare, "iterations/s", rates["bare"]),
        row(f"train_iterations_{name}", "iterations/s", rates["loop"], bare, rates["bare"]),
        row(f"train_samples_{name}", "samples/s", [batch * rate for rate in rates["loop"]]),
        row(f"train_outside_{name}", "% of the time", [100 * share for share in found["outside"]]),
        row(f"train_peak_memory_{name}", "MB", [peak_memory()]),
    ]


class TimedModule:
    """A training module that waits for each step and times it."""

    def __init__(self, module):
        self._module, self.seconds = module, 0.0

    def step(self, *arguments):
        """Train on a batch, as :meth:`train.module.TrainingModule.step`."""
        import mxnet as mx

        start = time.perf_counter()
        outputs = self._module.step(*arguments)
        mx.nd.waitall()
        self.seconds += time.perf_counter() - start
        return outputs

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self._module.lr


def _whole_loop(trainer, iterations: int) -> float:
    """Time the trainer's own loop in seconds; the first batches are already being prepared."""
    import mxnet as mx

    batches = trainer.batches
    batches.seek(0, 0)
    batch = batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(iterations):
        trainer.step(batch)
        batch = batches.next()
    mx.nd.waitall()
    return time.perf_counter() - start


def _outside(trainer, clock: TimedModule, iterations: int) -> float:
    """Return the share, 0..1, of the loop that is not forward, backward and update."""
    before = clock.seconds
    whole = _whole_loop(trainer, iterations)
    return 1 - (clock.seconds - before) / whole


def _bare_loop(module, batches, iterations: int) -> float:
    """Time forward, backward and update alone, in seconds."""
    import mxnet as mx

    batch = batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for iteration in range(iterations):
        module.step(batch, iteration)
    mx.nd.waitall()
    return time.perf_counter() - start


if __name__ == "__main__":
    work()
