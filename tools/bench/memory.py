"""What training and prediction take, beside what ``train/memory.py`` says before they take it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tools.bench.measuring import in_own_process, row
from train.machine import PROJECT, peak_memory

MEGABYTE = 2**20
# Name, configuration, and what differs from it: three networks at two sizes.
TRAININGS = (
    ("toy", "toy", ()),
    ("toy_512", "toy", ("data.crop_hw=512,512",)),
    ("resnet18_320x416", "camvid", ("data.crop_hw=320,416", "solver.batch_size=8")),
    ("resnet18_544", "camvid", ("data.crop_hw=544,544", "solver.batch_size=2")),
    ("resnet101_272", "duc_hdc", ("data.crop_hw=272,272", "solver.batch_size=1")),
    ("resnet101_384", "duc_hdc", ("data.crop_hw=384,384", "solver.batch_size=1")),
)
# One batch, in more and more parts.
WHOLE = ("data.crop_hw=320,416", "solver.batch_size=8")
PARTS = (1, 2, 8)
PREDICTIONS = (
    ("toy_1024x2048", "toy", (1024, 2048)),
    ("resnet18_720x960", "camvid", (720, 960)),
    ("resnet18_1024x2048", "camvid", (1024, 2048)),
    ("resnet101_544", "duc_hdc", (544, 544)),
    ("resnet101_544x800", "table1_baseline_aspp4_aug", (544, 800)),
)
STEPS = 2


def rows(*, runs: int = 1) -> Iterator[dict[str, Any]]:
    """Measure each case in a process of its own; peaks hardly differ from run to run.

    ``memory_train_*`` and ``memory_predict_*`` are measured, ``memory_estimate_*`` is what is said
    before, with its ratio to that. ``memory_parts_*`` is one batch under ``solver.accumulate``,
    with its ratio to the whole batch at once.
    """
    for name, config, options in TRAININGS:
        yield from _compared(f"train_{name}", ["train", config, *options], runs)
    for name, config, hw in PREDICTIONS:
        yield from _compared(f"predict_{name}", ["predict", config, *map(str, hw)], runs)
    whole: list[float] = []
    for parts in PARTS:
        command = ["train", "camvid", *WHOLE, f"solver.accumulate={parts}"]
        peaks = [measure(command)["measured"] for _ in range(runs)]
        whole = whole or peaks
        first = f"memory_parts_{PARTS[0]}_resnet18_320x416"
        name = f"memory_parts_{parts}_resnet18_320x416"
        yield row(name, "MB", peaks, *((first, whole) if parts > 1 else ()))


def _compared(name: str, command: Sequence[str], runs: int) -> Iterator[dict[str, Any]]:
    found = [measure(command) for _ in range(runs)]
    measured = [one["measured"] for one in found]
    estimated = [one["estimated"] for one in found]
    yield row(f"memory_{name}", "MB", measured)
    yield row(f"memory_estimate_{name}", "MB", estimated, f"memory_{name}", measured)


def measure(command: Sequence[str]) -> dict[str, float]:
    """Return ``measured`` and ``estimated`` MB of a process: ``train CONFIG OPTIONS...`` or
    ``predict CONFIG HEIGHT WIDTH``.
    """
    return in_own_process(__spec__.name, *command)


def work() -> None:
    """Be the process of one case: print both numbers."""
    from train import runtime  # noqa: F401  # sets threads before MXNet loads

    kind, name, *options = sys.argv[1:]
    estimated = _train(name, options) if kind == "train" else _predict(name, *map(int, options))
    print(json.dumps({"measured": peak_memory(), "estimated": estimated / MEGABYTE}))


def _train(name: str, options: Sequence[str]) -> float:
    """Take a few steps on one CPU context; return the estimate in bytes."""
    import mxnet as mx

    from train.distributed.workers import Workers
    from train.memory import training_bytes
    from train.module import TrainingModule
    from train.network import build_symbol
    from train.schedule import Length

    config, dataset, params = _network(name, options)
    symbol = build_symbol(config, dataset, learn_bn=True)
    batch, parts = config.solver.batch_size, config.solver.accumulate
    arguments = dict(
        zip(
            symbol.list_arguments(),
            symbol.infer_shape(data=(batch, 3, *config.data.crop_hw))[0],
        )
    )
    described = [[mx.io.DataDesc(n, arguments[n])] for n in ("data", "seg_loss_label")]
    module = TrainingModule(
        symbol, [mx.cpu()], *described, config.solver, params, {}, Workers("dist_sync"),
        Length(STEPS, STEPS), 0, True,
    )  # fmt: skip
    arrays = ([mx.nd.ones(one[0].shape)] for one in described)
    data = mx.io.DataBatch(*arrays)
    for iteration in range(STEPS):
        module.step(data, iteration).wait_to_read()
    mx.nd.waitall()
    crop_hw, freeze = config.data.crop_hw, config.solver.freeze
    return training_bytes(symbol, crop_hw, batch // parts, freeze=freeze)


def _predict(name: str, height: int, width: int) -> float:
    """Predict an image twice; return the estimate in bytes, with the process and the parameters."""
    import mxnet as mx
    import numpy as np

    from train.memory import FLOAT, PROCESS, predicting_bytes
    from train.network import build_symbol
    from train.segmenter import Segmenter

    config, dataset, params = _network(name, ())
    segmenter = Segmenter(build_symbol(config, dataset), *params, config.network, mx.cpu())
    for _ in range(2):
        segmenter.labels(np.zeros((height, width, 3), np.uint8))
    weights = FLOAT * sum(array.size for array in params[0].values())
    # The parameters are there as they were read, and folded.
    return PROCESS + 2 * weights + predicting_bytes(segmenter.symbol, (height, width))


def _network(name: str, options: Sequence[str]) -> tuple:
    from configs.datasets import load_dataset
    from configs.loader import load_config
    from train.initial import initial_params

    config = load_config(PROJECT / "configs" / f"{name}.cfg", ["solver.init_from=none", *options])
    dataset = load_dataset(config.data.dataset)
    return config, dataset, initial_params(config, dataset)


if __name__ == "__main__":
    work()
