"""Speed and memory of training, and the share of its time that the network does not compute."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from tools.bench.measuring import in_turn, row
from tools.toy.folder import make
from train.machine import PROJECT, allowed_cores, peak_memory

CONFIG = PROJECT / "configs" / "toy.cfg"
ITERATIONS = 20  # per run; the last one computes the training mIoU, as solver.log_every = 20 does
CONTEXTS = (1, 2)
FRAMES = 12
FRAME_HW = (128, 256)


def rows(*, runs: int = 5, contexts: Sequence[int] = CONTEXTS) -> list[dict[str, Any]]:
    """Train the toy network on generated streets, with 1 and with 2 CPU contexts.

    ``train_bare`` is the rate of forward, backward and update alone, on one batch.
    ``train_iterations`` is the rate of the trainer's whole loop, which also waits for the batch and
    computes loss and metrics; the two are measured in turn. The threads that load data share the
    cores with the network. ``train_outside`` is the share of the loop's time that passes outside
    forward, backward and update; to measure it, every iteration waits for these three. The toy
    network is the worst case: its iterations take less than 0.1 s.
    """
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make(data, {"layout": "cityscapes", "frames": FRAMES, "seed": 0, "hw": FRAME_HW})
        for count in contexts:
            out = Path(folder) / f"{count}.json"
            # Threads are set before MXNet loads, so each count needs its own process.
            arguments = map(str, (data, out, count, runs))
            command = [sys.executable, "-m", __spec__.name, *arguments]
            subprocess.run(command, cwd=PROJECT, check=True)
            found += json.loads(out.read_text(encoding="utf-8"))
    return found


def work() -> None:
    """Run as the process for one number of contexts: measure, and write the rows."""
    from train.runtime import contexts

    data, out, count, runs = sys.argv[1:]
    devices = contexts(cpus=int(count))
    rows = _measure(Path(data), Path(out).with_suffix(""), devices, int(runs))
    Path(out).write_text(json.dumps(rows), encoding="utf-8")


def _measure(data: Path, out: Path, devices: list, runs: int) -> list[dict[str, Any]]:
    from configs.datasets import load_dataset
    from configs.loader import load_config
    from train.data import open_batches
    from train.distributed.workers import Workers
    from train.reporter import Reporter
    from train.run_dir import RunDir
    from train.start import start
    from train.trainer import Trainer

    # A smaller stride makes an epoch longer than one run.
    options = ["data.val_split=", "data.patch_stride=8", f"solver.log_every={ITERATIONS}"]
    config = load_config(CONFIG, options)
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
                "loop": partial(_whole_loop, trainer),
                "bare": partial(_bare_loop, module, batches),
                "outside": partial(_outside, timed, clock),
            }
            in_turn(measures, 1)  # the first step loads libraries and allocates memory
            found = in_turn(measures, runs)
    name = f"toy_{len(devices)}contexts_{allowed_cores()}threads"
    rates = {what: [ITERATIONS / seconds for seconds in found[what]] for what in ("loop", "bare")}
    samples = [rate * config.solver.batch_size for rate in rates["loop"]]
    bare = f"train_bare_{name}"
    return [
        row(bare, "iterations/s", rates["bare"]),
        row(f"train_iterations_{name}", "iterations/s", rates["loop"], bare, rates["bare"]),
        row(f"train_samples_{name}", "samples/s", samples),
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


def _whole_loop(trainer) -> float:
    """Time the trainer's own loop in seconds; the first batches are already being prepared."""
    import mxnet as mx

    batches = trainer.batches
    batches.seek(0, 0)
    batch = batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(ITERATIONS):
        trainer.step(batch)
        batch = batches.next()
    mx.nd.waitall()
    return time.perf_counter() - start


def _outside(trainer, clock: TimedModule) -> float:
    """Return the share, 0..1, of the loop that is not forward, backward and update."""
    before = clock.seconds
    whole = _whole_loop(trainer)
    return 1 - (clock.seconds - before) / whole


def _bare_loop(module, batches) -> float:
    """Time forward, backward and update alone, in seconds."""
    import mxnet as mx

    batch = batches.next()
    mx.nd.waitall()
    start = time.perf_counter()
    for iteration in range(ITERATIONS):
        module.step(batch, iteration)
    mx.nd.waitall()
    return time.perf_counter() - start


if __name__ == "__main__":
    work()
