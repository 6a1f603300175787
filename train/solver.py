"""Training: wires the data iterator, ``mx.mod.Module`` and SGD together (paper, section 4.1.1)."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import zlib
from pathlib import Path

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter import DataError

from . import checkpoint
from .checkpoint import ITERATION, Progress
from .data import open_batches, open_split
from .distributed.workers import Workers
from .errors import RunError
from .health import EXPLODED, EXPLODED_FOR, cross_entropy, explained, lost
from .initial import initial_params
from .metrics import confusion_matrix, iou, mean_score
from .module import TrainingModule
from .network import build_symbol, check_params
from .params import join_params, split_params
from .reporter import Reporter
from .run_dir import RunDir
from .stop import StopWish
from .validation import validate

log = logging.getLogger("train")


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
    workers : Workers
        The other processes of a distributed job.

    Raises
    ------
    DataError, RunError
        The data cannot be used; the batch cannot be shared equally; another number of class
        weights than classes.
    """

    def __init__(
        self,
        config: Config,
        dataset: DatasetSpec,
        data_root: Path,
        contexts: list[mx.Context],
        run: RunDir,
        workers: Workers,
    ):
        batch_size = config.solver.batch_size
        if batch_size % len(contexts):
            raise RunError(
                f"solver.batch_size {batch_size} cannot be shared equally by "
                f"{len(contexts)} devices"
            )
        weights, classes = len(config.solver.class_weights), dataset.num_classes
        if weights not in (0, classes):
            raise RunError(
                f"solver.class_weights: expected {classes} numbers, one for each class of "
                f"{dataset.name}, got {weights}"
            )
        self.config, self.dataset, self.contexts, self.run = config, dataset, contexts, run
        self.workers, self._data_root = workers, data_root
        self.batches = open_batches(config, dataset, data_root, workers.count, workers.rank)
        self.val_frames = None
        if config.data.val_split:
            self.val_frames = open_split(dataset, data_root, config.data.val_split)
        self.iterations = config.solver.epochs * len(self.batches)

    def fit(self, stop: StopWish, allow_changes: bool = False) -> bool:
        """Train until the last epoch, or until ``stop`` has a reason; return whether it is done.

        Where the run folder has checkpoints, training goes on from the newest whole one, and on
        CPUs ends with the same bits as a run that was never interrupted.

        Raises
        ------
        RunError
            The data or the devices are not those of the checkpoint, without ``allow_changes``;
            or the network is another.
        """
        try:
            with explained(self.config, self.run.path, self._data_root):
                self.start(allow_changes)
                self._train(stop)
        finally:
            self.batches.close()
        if self.workers.count > 1:
            digest = zlib.crc32(_content(self.module.params()))
            log.info(
                "worker %d of %d: parameters %08x", self.workers.rank, self.workers.count, digest
            )
        done = self.progress.epoch >= self.config.solver.epochs
        if not done:
            why = stop.reason or "another worker"
            log.info(
                "stopped by %s after iteration %d; saved, go on with --resume", why, self._iteration
            )
        return done

    def _train(self, stop: StopWish) -> None:
        epochs = self.config.solver.epochs
        run = self.run if self.workers.rank == 0 else None
        with Reporter(run, epochs, self.iterations, self._iteration) as self.reporter:
            while self.progress.epoch < epochs:
                if not (self._train_epoch(stop) and self._end_epoch(stop)):
                    return

    def start(self, allow_changes: bool = False) -> None:
        """Begin, or go on from the newest checkpoint."""
        here = {
            "patches": len(self.batches.reader),
            "batches": len(self.batches),
            "devices": len(self.contexts),
            "workers": self.workers.count,
        }
        state: dict[str, mx.nd.NDArray] = {}
        if checkpoint.read_manifest(self.run.path):
            named, state, self.progress = checkpoint.load_newest(self.run.path)
            params = split_params(named)
            symbol = build_symbol(self.config, self.dataset)
            check_params(symbol, *params, self.run.path, self.config.network.downsample)
            if not allow_changes:
                checkpoint.check_same(self.run.path, self.progress, here)
        else:
            self.progress = Progress()
            params = initial_params(self.config, self.dataset)
            if self.workers.rank == 0:
                checkpoint.begin(self.run.path)
        self.progress = dataclasses.replace(self.progress, **here)
        self._saved = self._iteration
        if self.workers.rank == 0:
            self.run.describe(self.config, self.dataset)
            self.run.note_start(self.contexts, self.config.experiment.seed)
            self.run.cut_log(self.progress.log_bytes)
        own = f"worker{self.workers.rank}."
        if self._learns_bn:
            state |= {key[len(own) :]: v for key, v in state.items() if key.startswith(own)}
        self.module = TrainingModule(
            self._symbol(),
            self.contexts,
            self.batches.provide_data,
            self.batches.provide_label,
            self.config.solver,
            params,
            state,
            self.workers,
            self.iterations,
            len(self.batches),
            self._iteration,
            self._learns_bn,
        )
        self._check_equal(params)

    @property
    def _iteration(self) -> int:
        """Iterations that are done."""
        return self.progress.epoch * len(self.batches) + self.progress.batch

    @property
    def _save_name(self) -> str:
        """Name of a checkpoint within an epoch."""
        return f"{ITERATION}{self._iteration:07d}"

    @property
    def _learns_bn(self) -> bool:
        return self.progress.epoch < self.config.solver.learn_bn_epochs

    def _symbol(self) -> mx.sym.Symbol:
        return build_symbol(self.config, self.dataset, learn_bn=self._learns_bn, weighted=True)

    def _train_epoch(self, stop: StopWish) -> bool:
        """Train what is left of the epoch; False where a wish to stop ended it before."""
        every = self.config.solver.checkpoint_every
        self.batches.seek(self.progress.epoch, self.progress.batch)
        try:
            for batch in self.batches:
                self.step(batch)
                if self.workers.agree(stop.reason is not None):
                    self._save(self._save_name)
                    return False
                if every and self._iteration % every == 0:
                    self._save(self._save_name)
        except DataError:  # a file or the whole folder is gone; what was learnt is not
            # Several workers can only save together.
            if self.workers.count == 1 and self._iteration > self._saved:
                self._save(self._save_name)
            raise
        return True

    def step(self, batch: mx.io.DataBatch) -> None:
        """Train on one batch."""
        progress = self.progress
        probabilities = self.module.step(batch, self._iteration)
        loss = cross_entropy(probabilities, batch.label[0], self.dataset.ignore_id)
        self._watch_loss(loss, batch)
        progress.losses.append(loss)
        progress.batch += 1
        self.reporter.step(self.batches.batch_size)
        at_end = progress.batch == len(self.batches)
        if progress.batch % self.config.solver.log_every == 0 or at_end:
            confusion = self._confusion(probabilities, batch)
            if progress.confusion:
                confusion += np.array(progress.confusion)
            progress.confusion = confusion.tolist()
            loss, miou = float(np.mean(progress.losses)), mean_score(iou(confusion))
            self.reporter.train(progress.epoch + 1, self._iteration, self.module.lr, loss, miou)
            progress.losses = []

    def _end_epoch(self, stop: StopWish) -> bool:
        """Save a finished epoch and validate it; False where a wish to stop ended it before."""
        progress, learnt_bn = self.progress, self._learns_bn
        name = f"model-{progress.epoch + 1:04d}"
        params = self._save(name)
        validates = self.workers.rank == 0 and self.val_frames
        if validates and not self._validate(name, params, stop):
            self.workers.agree(True)
            return False
        progress.epoch, progress.batch, progress.confusion = progress.epoch + 1, 0, []
        if self.workers.rank == 0:
            progress.log_bytes = self.run.log_bytes
            checkpoint.update_newest(self.run.path, progress, self.config.solver.keep_checkpoints)
        if learnt_bn and not self._learns_bn:
            self.module.fix_bn(self._symbol(), params)
        return not self.workers.agree(stop.reason is not None)

    def _validate(self, name: str, params: tuple[dict, dict], stop: StopWish) -> bool:
        """Score the epoch; False where a wish to stop ended that early."""
        progress = self.progress
        scores = validate(
            self.config,
            self.dataset,
            self.val_frames,
            params,
            self.contexts[0],
            stop,
            functools.partial(self.reporter.picture, self._iteration),
        )
        if scores is None:
            return False
        self.reporter.validation(progress.epoch + 1, self._iteration, scores)
        progress.val_miou = scores["val_miou"]
        if progress.best_miou is None or progress.val_miou > progress.best_miou:
            progress.best, progress.best_miou = name, progress.val_miou
        return True

    def _save(self, name: str) -> tuple[dict, dict]:
        """Write a checkpoint and return its parameters; every worker has to call this."""
        params, state = self.module.params(), self.module.state()
        self._check_equal(params)
        several = self.workers.count * len(self.contexts) > 1
        if self._learns_bn and several:  # each has statistics of its own; the model gets their mean
            table = self.workers.gather("statistics", self.module.statistics())
            for rank, own in enumerate(table):
                state |= {f"worker{rank}.{key}": value for key, value in own.items()}
            means = self.workers.gather("means", params[1])
            params = (
                params[0],
                {name: sum(own[name] for own in means) / len(means) for name in params[1]},
            )
        self._saved = self._iteration
        if self.workers.rank == 0:
            self.progress.log_bytes = self.run.log_bytes
            checkpoint.save(
                self.run.path,
                name,
                join_params(*params),
                state,
                self.progress,
                self.config.solver.keep_checkpoints,
            )
        return params

    def _check_equal(self, params: tuple[dict, dict]) -> None:
        """Several synchronous workers must have one progress and one network."""
        if self.workers.count > 1:
            place = repr((self.progress.epoch, self.progress.batch, self.progress.batches))
            self.workers.check_equal("progress or parameters", place.encode() + _content(params))

    def _watch_loss(self, loss: float, batch: mx.io.DataBatch) -> None:
        """Raise ``RunError`` once the loss is no number, or has been far too high for long."""
        progress = self.progress
        progress.exploded = progress.exploded + 1 if loss > EXPLODED else 0
        if not math.isfinite(loss) or progress.exploded == EXPLODED_FOR:
            files = sorted({self.batches.reader.name(int(i)) for i in batch.index})
            place = (self._iteration + 1, self.module.lr)
            newest = None
            if 0 < self._saved == self._iteration:  # the loss is that of the saved parameters
                newest = self._save_name if progress.batch else f"model-{progress.epoch:04d}"
            raise lost(self.config.solver, loss, *place, files, newest)

    def _confusion(self, probabilities: mx.nd.NDArray, batch: mx.io.DataBatch) -> np.ndarray:
        return confusion_matrix(
            batch.label[0].asnumpy().astype(np.uint8),
            probabilities.argmax(axis=1).asnumpy().astype(np.uint8),
            self.dataset.num_classes,
            self.dataset.ignore_id,
        )


def _content(params: tuple[dict, dict]) -> bytes:
    return b"".join(params[0][name].asnumpy().tobytes() for name in sorted(params[0]))
