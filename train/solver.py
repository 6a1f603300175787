"""Training: wires the data iterator, ``mx.mod.Module`` and SGD together (paper, section 4.1.1)."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter import DataError
from data_iter.crops import CropReader
from data_iter.frames import Frames, open_frames
from data_iter.segmentation_iter import SegmentationIter

from . import checkpoint
from .checkpoint import Progress
from .errors import RunError
from .metrics import confusion_matrix, iou, mean_score
from .module import TrainingModule
from .params import build_symbol, initial_params, join_params, split_params
from .reporter import Reporter
from .run_dir import RunDir
from .stop import StopWish
from .validation import validate

log = logging.getLogger("train")

# Cross-entropy of a class given probability 2e-9: the network is sure of what is wrong everywhere.
EXPLODED = 20.0


class Solver:
    """Trains ``config``'s network on a data set.

    Parameters
    ----------
    config : Config
        The experiment.
    dataset : DatasetSpec
        The class table of ``config.data.dataset``.
    data_root : Path
        The data set's folder.
    contexts : list of Context
        Devices; each gets an equal share of every batch.
    run : RunDir
        Where results go.

    Raises
    ------
    DataError, RunError
        The data cannot be used; the batch cannot be shared equally.
    """

    def __init__(
        self,
        config: Config,
        dataset: DatasetSpec,
        data_root: Path,
        contexts: list[mx.Context],
        run: RunDir,
    ):
        solver, data = config.solver, config.data
        if solver.batch_size % len(contexts):
            raise RunError(
                f"solver.batch_size {solver.batch_size} cannot be shared equally by "
                f"{len(contexts)} devices"
            )
        self.config, self.dataset, self.contexts, self.run = config, dataset, contexts, run

        def frames(split: str, cache_mb: int = 0) -> Frames:
            return open_frames(dataset.layout, data_root, split, dataset.home, cache_mb)

        self.reader = CropReader(
            frames(data.train_split, data.cache_mb),
            label_lut=dataset.label_lut,
            ignore_id=dataset.ignore_id,
            mean_rgb=config.network.mean_rgb,
            crop_hw=data.crop_hw,
            patches=data.patches,
            patch_hw=data.patch_hw,
            patch_stride=data.patch_stride,
            scales=data.scales,
            mirror=data.mirror,
            seed=config.experiment.seed,
            on_bad_sample=data.on_bad_sample,
            max_bad_share=data.max_bad_share,
        )
        self.val_frames = frames(data.val_split) if data.val_split else None
        self.batches = SegmentationIter(
            self.reader,
            solver.batch_size,
            *config.network.cell_layout,
            threads=data.threads,
            queue=data.queue,
        )
        self.iterations = solver.epochs * len(self.batches)
        self.schedule = mx.lr_scheduler.PolyScheduler(self.iterations, solver.lr, solver.power)

    def fit(self, stop: StopWish, allow_changes: bool = False) -> bool:
        """Train until the last epoch, or until ``stop`` has a reason; return whether it is done.

        Where the run folder has checkpoints, training goes on from the newest whole one, and on
        CPUs ends with the same bits as a run that was never interrupted.

        Raises
        ------
        RunError
            The data or the devices are not those of the checkpoint, without ``allow_changes``.
        """
        self.run.note_start(self.contexts, self.config.experiment.seed)
        try:
            self._start(allow_changes)
            epochs = self.config.solver.epochs
            with Reporter(self.run, epochs, self.iterations, self._iteration) as self.reporter:
                while self.progress.epoch < epochs:
                    if not (self._train_epoch(stop) and self._end_epoch(stop)):
                        log.info("stopped by %s after iteration %d; saved",
                                 stop.reason, self._iteration)  # fmt: skip
                        return False
            return True
        finally:
            self.batches.close()

    def _start(self, allow_changes: bool) -> None:
        """Begin, or go on from the newest checkpoint."""
        here = {"batches": len(self.batches), "devices": len(self.contexts)}
        state: dict[str, mx.nd.NDArray] = {}
        if checkpoint.read_manifest(self.run.path):
            named, state, self.progress = checkpoint.load_newest(self.run.path)
            params = split_params(named)
            for what, count in here.items():
                before = getattr(self.progress, what)
                if before != count and not allow_changes:
                    raise RunError(
                        f"{self.run.path}: the run was begun with {before} {what}"
                        f"{' in an epoch' if what == 'batches' else ''}, now there are {count}; "
                        "resume with --allow-changes if that is meant"
                    )
        else:
            self.progress = Progress()
            params = initial_params(self.config, self.dataset)
        self.progress = dataclasses.replace(self.progress, **here)
        self.run.cut_log(self.progress.log_bytes)
        self._bind(params, state)

    @property
    def _iteration(self) -> int:
        """Iterations that are done."""
        return self.progress.epoch * len(self.batches) + self.progress.batch

    @property
    def _learns_bn(self) -> bool:
        return self.progress.epoch < self.config.solver.learn_bn_epochs

    def _bind(self, params: tuple[dict, dict], state: dict) -> None:
        """Make the module of the current epoch."""
        self.module = TrainingModule(
            build_symbol(self.config, self.dataset, self._learns_bn),
            self.contexts,
            self.batches.provide_data,
            self.batches.provide_label,
            self.config.solver,
            params,
            state,
        )

    def _train_epoch(self, stop: StopWish) -> bool:
        """Train what is left of the epoch; False where a wish to stop ended it before."""
        every = self.config.solver.checkpoint_every
        self.batches.seek(self.progress.epoch, self.progress.batch)
        try:
            for batch in self.batches:
                self._step(batch)
                if stop.reason:
                    self._save(f"iteration-{self._iteration:07d}")
                    return False
                if every and self._iteration % every == 0:
                    self._save(f"iteration-{self._iteration:07d}")
        except DataError:  # a file or the whole folder is gone; what was learnt is not
            self._save(f"iteration-{self._iteration:07d}")
            raise
        return True

    def _step(self, batch: mx.io.DataBatch) -> None:
        """Train on one batch."""
        progress, lr = self.progress, self.schedule(self._iteration)
        probabilities = self.module.step(batch, lr)
        progress.losses.append(self._loss(probabilities, batch, lr))
        progress.batch += 1
        self.reporter.step(self.batches.batch_size)
        at_end = progress.batch == len(self.batches)
        if progress.batch % self.config.solver.log_every == 0 or at_end:
            confusion = self._confusion(probabilities, batch)
            if progress.confusion:
                confusion += np.array(progress.confusion)
            progress.confusion = confusion.tolist()
            loss, miou = float(np.mean(progress.losses)), mean_score(iou(confusion))
            self.reporter.train(progress.epoch + 1, self._iteration, lr, loss, miou)
            progress.losses = []

    def _end_epoch(self, stop: StopWish) -> bool:
        """Save a finished epoch and validate it; False where a wish to stop ended it before."""
        progress, learnt_bn = self.progress, self._learns_bn
        name, params = f"model-{progress.epoch + 1:04d}", self.module.params()
        self._save(name, params)
        if self.val_frames:
            scores = validate(
                self.config, self.dataset, self.val_frames, params, self.contexts[0], stop
            )
            if scores is None:
                return False
            self.reporter.validation(progress.epoch + 1, scores)
            progress.val_miou = scores["val_miou"]
            if progress.best_miou is None or progress.val_miou > progress.best_miou:
                progress.best, progress.best_miou = name, progress.val_miou
        progress.epoch, progress.batch, progress.confusion = progress.epoch + 1, 0, []
        progress.log_bytes = self.run.log_bytes
        checkpoint.update_newest(self.run.path, progress, self.config.solver.keep_checkpoints)
        if learnt_bn and not self._learns_bn:
            self._bind(params, self.module.state())
        return True

    def _save(self, name: str, params: tuple[dict, dict] | None = None) -> None:
        self.progress.log_bytes = self.run.log_bytes
        checkpoint.save(
            self.run.path,
            name,
            join_params(*(params or self.module.params())),
            self.module.state(),
            self.progress,
            self.config.solver.keep_checkpoints,
        )

    def _loss(self, probabilities: mx.nd.NDArray, batch: mx.io.DataBatch, lr: float) -> float:
        """Mean cross-entropy over the batch's valid cells; a loss that is none ends the run."""
        label = batch.label[0].as_in_context(probabilities.context)
        valid = label != self.dataset.ignore_id
        chosen = mx.nd.pick(probabilities, label * valid, axis=1)
        total = -(mx.nd.log(mx.nd.maximum(chosen, 1e-12)) * valid).sum()
        loss = float((total / mx.nd.maximum(valid.sum(), 1)).asscalar())
        if not math.isfinite(loss) or loss > EXPLODED:
            files = ", ".join(sorted({self.reader.name(int(i)) for i in batch.index}))
            raise RunError(
                f"the loss is {loss:g} at iteration {self._iteration + 1}, learning rate {lr:g}; "
                f"lower solver.lr, or look at the batch's files: {files}"
            )
        return loss

    def _confusion(self, probabilities: mx.nd.NDArray, batch: mx.io.DataBatch) -> np.ndarray:
        return confusion_matrix(
            batch.label[0].asnumpy().astype(np.uint8),
            probabilities.argmax(axis=1).asnumpy().astype(np.uint8),
            self.dataset.num_classes,
            self.dataset.ignore_id,
        )
