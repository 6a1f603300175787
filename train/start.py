"""Prepare a run for its first step: its progress, and the network bound to its devices."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.frames import Frames
from data_iter.segmentation_iter import SegmentationIter
from symbols.errors import one_of

from . import checkpoint, statistics
from .checkpoint import Progress
from .distributed.workers import Workers
from .errors import RunError
from .initial import initial_params
from .module import TrainingModule
from .network import build_symbol, check_params
from .params import Params, split_params
from .run_dir import RunDir
from .schedule import SCHEDULES, Length

log = logging.getLogger("train")
LOOKED_AT, SIDE = 4, 256  # crops of the first batch, and pixels of each side of their middles


def check(config: Config, dataset: DatasetSpec, contexts: list[mx.Context], run: Path) -> None:
    """Raise an error if the configuration does not suit devices, classes or the start."""
    solver, devices = config.solver, len(contexts)
    if solver.schedule not in SCHEDULES:
        raise config.error("solver", "schedule", one_of(solver.schedule, SCHEDULES))
    if solver.batch_size % (devices * solver.accumulate):
        parts = f" in {solver.accumulate} parts (solver.accumulate)"
        raise RunError(
            f"solver.batch_size {solver.batch_size} cannot be shared equally by {devices} devices"
            + (parts if solver.accumulate > 1 else "")
        )
    if solver.kvstore == "dist_async":
        if solver.stop_after:
            raise RunError(
                "solver.stop_after needs workers that keep step: solver.kvstore is dist_async"
            )
        if SCHEDULES[solver.schedule].of_servers is None:
            raise RunError(
                f"solver.schedule {solver.schedule} is not known to the servers that update by "
                "themselves: solver.kvstore is dist_async"
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
    """Begin, or continue from the newest checkpoint in the run folder, and record the start there.

    Raises
    ------
    RunError
        The data or the devices are not those of the checkpoint, without ``allow_changes``; the
        network is another; the workers differ; or the run is shorter than its warm-up.
    """
    length = Length(config.solver.epochs * len(batches), len(batches))
    if config.solver.warmup >= length.run:
        raise RunError(
            f"solver.warmup {config.solver.warmup}: expected less than the run's {length.run} "
            "iterations"
        )
    here = {
        "patches": len(batches.reader),
        "batches": len(batches),
        "devices": len(contexts),
        "workers": workers.count,
        "data": batches.reader.digest(),
    }
    if config.data.compare_labels:
        here["labels"] = batches.reader.label_digest()
    if checkpoint.read_manifest(run.path):
        params, state, progress = _resumed(config, dataset, run, None if allow_changes else here)
        if workers.rank == 0 and (run.load() != (config, dataset) or progress.data != here["data"]):
            progress.validated, progress.val_confusion = 0, []  # of a validation broken off
    else:
        params, state, progress = initial_params(config, dataset), {}, Progress()
        if config.solver.source and workers.rank == 0:
            log.info("%s: %s", config.solver.source, _agreement(config, dataset, batches, params))
    progress = dataclasses.replace(progress, **here)
    if workers.rank == 0:
        checkpoint.check_first(run.path, params)
        _note(config, dataset, batches, contexts, run, progress)
    learns_bn = progress.epoch < config.solver.learn_bn_epochs
    module = TrainingModule(
        build_symbol(config, dataset, learn_bn=learns_bn, training=True), contexts,
        batches.provide_data, batches.provide_label, config.solver, params, state, workers,
        length, progress.iteration, learns_bn,
    )  # fmt: skip
    module.check_equal(progress.place)
    return progress, module


def _resumed(
    config: Config, dataset: DatasetSpec, run: RunDir, here: dict[str, int | str] | None
) -> tuple[tuple[Params, Params], Params, Progress]:
    """Read the newest checkpoint; check that it fits the network, and compare it with ``here``."""
    named, state, progress = checkpoint.load_newest(run.path)
    params = split_params(named)
    check_params(build_symbol(config, dataset), *params, run.path, config.network.downsample)
    if here is not None:
        checkpoint.check_same(run.path, progress, here)
    return params, state, progress


def _note(
    config: Config,
    dataset: DatasetSpec,
    batches: SegmentationIter,
    contexts: list[mx.Context],
    run: RunDir,
    progress: Progress,
) -> None:
    """Record the start, and drop the log's records after the checkpoint."""
    if not checkpoint.read_manifest(run.path):
        checkpoint.begin(run.path)
    run.describe(config, dataset)
    run.note_start(contexts, config.experiment.seed)
    run.note_long_side(batches.reader.long_side)
    run.log.cut(progress.log_bytes)


def _agreement(
    config: Config,
    dataset: DatasetSpec,
    batches: SegmentationIter,
    params: tuple[Params, Params],
) -> str:
    """Say whether start parameters match the images, judged by a few crops on the CPU."""
    data = batches.next().data[0][:LOOKED_AT].asnumpy()
    batches.seek(0, 0)
    top, left = (max(0, (side - SIDE) // 2) for side in data.shape[2:])
    middle = data[:, :, top : top + SIDE, left : left + SIDE]
    return statistics.verdict(config, dataset, params, [middle], mx.cpu()).text


def summary(
    config: Config,
    dataset: DatasetSpec,
    batches: SegmentationIter,
    frames: Frames | None,
    module: TrainingModule,
    contexts: list[mx.Context],
    memory: int,
) -> list[str]:
    """Describe the network, the data and the length of the training, in lines."""
    data, solver, network = config.data, config.solver, config.network
    scored = f"; {len(frames)} frames of {data.val_split} validate" if frames else ""
    parts = f" in {solver.accumulate} parts" if solver.accumulate > 1 else ""
    named = zip(dataset.train_classes, solver.class_weights)
    weights = ", ".join(f"{row.name} {weight:g}" for row, weight in named)
    return [
        f"training: ResNet-{network.depth}, {network.decoder}, {module.size / 1e6:.1f} M "
        f"parameters, on {', '.join(map(str, contexts))}; about {memory / 1e9:.1f} GB of memory",
        f"data: {batches.reader.frames} frames, {len(batches.reader)} patches of {data.dataset} "
        f"{data.train_split}{scored}",
        f"epochs: {solver.epochs} of {len(batches)} iterations, {solver.batch_size} crops of "
        f"{data.crop_hw[0]}x{data.crop_hw[1]} each{parts}",
        *([f"solver.class_weights: {weights}"] if weights else []),
    ]
