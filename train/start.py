"""What a run needs before its first step: where it stands, and the network bound to its devices."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.segmentation_iter import SegmentationIter

from . import checkpoint, statistics
from .checkpoint import Progress
from .distributed.workers import Workers
from .errors import RunError
from .initial import initial_params
from .module import TrainingModule
from .network import build_symbol, check_params
from .params import Params, split_params
from .run_dir import RunDir

log = logging.getLogger("train")
LOOKED_AT, SIDE = 4, 256  # crops of the first batch, and pixels of each side of their middles


def check(config: Config, dataset: DatasetSpec, contexts: list[mx.Context], run: Path) -> None:
    """Raise ``RunError`` where the configuration does not suit devices, classes or the start."""
    solver, devices = config.solver, len(contexts)
    if solver.batch_size % (devices * solver.accumulate):
        parts = f" in {solver.accumulate} parts (solver.accumulate)"
        raise RunError(
            f"solver.batch_size {solver.batch_size} cannot be shared equally by {devices} devices"
            + (parts if solver.accumulate > 1 else "")
        )
    if solver.stop_after and solver.kvstore == "dist_async":
        raise RunError(
            "solver.stop_after needs workers that keep step: solver.kvstore is dist_async"
        )
    weights, classes = len(solver.class_weights), dataset.num_classes
    if weights not in (0, classes) and solver.class_weights != ("auto",):
        raise RunError(
            f"solver.class_weights: expected {classes} numbers, one for each class of "
            f"{dataset.name}, got {weights}"
        )
    if not (solver.init_from or solver.learn_bn_epochs or checkpoint.read_manifest(run)):
        raise RunError(
            "random weights learn next to nothing while BN statistics are fixed: start from "
            "trained ones with --set solver.init_from=FILE (python tools/convert_weights.py names "
            "sources), or learn the statistics with --set solver.learn_bn_epochs=N; if you mean "
            "it, --set solver.init_from=none"
        )


def start(
    config: Config,
    dataset: DatasetSpec,
    batches: SegmentationIter,
    contexts: list[mx.Context],
    run: RunDir,
    workers: Workers,
    allow_changes: bool,
) -> tuple[Progress, TrainingModule]:
    """Begin, or go on from the newest checkpoint in the run folder, and note the start there.

    Raises
    ------
    RunError
        The data or the devices are not those of the checkpoint, without ``allow_changes``; the
        network is another; or the workers differ.
    """
    here = {
        "patches": len(batches.reader),
        "batches": len(batches),
        "devices": len(contexts),
        "workers": workers.count,
        "data": batches.reader.digest(),
    }
    state: Params = {}
    if checkpoint.read_manifest(run.path):
        named, state, progress = checkpoint.load_newest(run.path)
        params = split_params(named)
        symbol = build_symbol(config, dataset)
        check_params(symbol, *params, run.path, config.network.downsample)
        if not allow_changes:
            checkpoint.check_same(run.path, progress, here)
    else:
        progress = Progress()
        params = initial_params(config, dataset)
        if config.solver.source and workers.rank == 0:
            log.info("%s: %s", config.solver.source, _agreement(config, dataset, batches, params))
        if workers.rank == 0:
            checkpoint.begin(run.path)
    progress = dataclasses.replace(progress, **here)
    if workers.rank == 0:
        run.describe(config, dataset)
        run.note_start(contexts, config.experiment.seed)
        run.note_long_side(batches.reader.long_side)
        run.cut_log(progress.log_bytes)
    learns_bn = progress.epoch < config.solver.learn_bn_epochs
    module = TrainingModule(
        build_symbol(config, dataset, learn_bn=learns_bn, weighted=True),
        contexts,
        batches.provide_data,
        batches.provide_label,
        config.solver,
        params,
        state,
        workers,
        config.solver.epochs * len(batches),
        len(batches),
        progress.iteration,
        learns_bn,
    )
    module.check_equal(progress.place)
    return progress, module


def _agreement(
    config: Config,
    dataset: DatasetSpec,
    batches: SegmentationIter,
    params: tuple[Params, Params],
) -> str:
    """Say whether start parameters belong to the images, by a few crops on the CPU."""
    data = batches.next().data[0][:LOOKED_AT].asnumpy()
    batches.seek(0, 0)
    top, left = (max(0, (side - SIDE) // 2) for side in data.shape[2:])
    middle = data[:, :, top : top + SIDE, left : left + SIDE]
    return statistics.verdict(config, dataset, params, [middle], mx.cpu()).text
