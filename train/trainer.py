"""The training loop (paper, section 4.1.1): batch, step, log; after an epoch save and validate."""

from __future__ import annotations

import logging
import math
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.frames import Frames
from data_iter.segmentation_iter import SegmentationIter

from . import checkpoint
from .checkpoint import Progress
from .data import open_batches, open_split, with_class_weights
from .distributed.workers import Workers
from .errors import RunError
from .health import EXPLODED, EXPLODED_FOR, cross_entropy, explained, lost
from .memory import check_training, used_bytes
from .metrics import confusion_matrix, iou, mean_score, or_none
from .module import TrainingModule
from .network import build_symbol
from .params import Params, join_params
from .reporter import Reporter
from .run_dir import RunDir
from .run_log import log_to
from .segmenter import Segmenter
from .start import check, start, summary
from .stop import SAVED, StopWish
from .validation import ScoredFrame, validate

log = logging.getLogger("train")


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
    ignore_memory: bool = False,
) -> int:
    """Train ``config``'s network on a data set, in the run folder ``out``.

    If the run folder has checkpoints, training continues from the newest whole one and, on CPUs,
    ends with the same bits as a run without interruption.

    Parameters
    ----------
    config : Config
        The experiment.
    dataset : DatasetSpec
        The class table of ``config.data.dataset``.
    data_root, out : Path
        The data set's folder, and the run folder.
    contexts : list of Context
        Devices; each gets an equal share of every batch.
    stop : StopWish
        When to save and end.
    resume : bool
        Continue from the newest checkpoint in ``out``, if there is one.
    allow_changes : bool
        Also resume with another configuration, other data or another number of devices.
    ignore_memory : bool
        Also begin if the estimated memory is not available.

    Returns
    -------
    int
        0: all epochs are done; 75: saved before the end, start again to continue.

    Raises
    ------
    DataError, RunError
        The data, the run folder or the machine cannot be used, or training cannot go on.
    """
    run, solver = RunDir(out), config.solver
    log_to()  # what is read before the folder is open may be worth a warning, too
    with Workers(solver.kvstore) as workers:
        check(config, dataset, contexts, out)
        validates = workers.rank == 0  # and writes
        frames = None
        if config.data.val_split:
            frames = open_split(dataset, data_root, config.data.val_split)
        frame_hw = frames.hw(0) if frames and validates else None
        memory = check_training(config, dataset, contexts, frame_hw, ignore_memory)

        batches = open_batches(config, dataset, data_root, workers.count, workers.rank)
        config = with_class_weights(config, dataset, batches.reader)

        folder = run.open(config, dataset, resume, allow_changes) if validates else run.join()
        with closing(batches), folder, explained(config, out, data_root):
            progress, module = start(
                config, dataset, batches, contexts, run, workers, allow_changes
            )
            reporter = Reporter(
                run if validates else None, solver.epochs, solver.epochs * len(batches),
                progress.iteration, dataset, partial(used_bytes, contexts),
            )  # fmt: skip
            what = summary(config, dataset, batches, frames, module, contexts, memory)
            reporter.say(*what, f"everything goes to {out}")
            trainer = Trainer(
                config, dataset, batches, frames, contexts[0], module, progress, reporter, run,
                workers,
            )  # fmt: skip
            return 0 if trainer.fit(stop) else SAVED


@dataclass
class Trainer:
    """Trains a network; :func:`train` makes its parts."""

    config: Config
    dataset: DatasetSpec
    batches: SegmentationIter
    frames: Frames | None  # of the validation split
    context: mx.Context  # computes the validation
    module: TrainingModule
    progress: Progress
    reporter: Reporter
    run: RunDir
    workers: Workers

    def __post_init__(self) -> None:
        self._saved = self.progress.iteration  # of the newest checkpoint
        self._in_step = False  # parameters and progress are of different iterations

    def fit(self, stop: StopWish) -> bool:
        """Train until the run is done, or until ``stop`` has a reason; return whether it is."""
        with self.reporter:
            while not self.done:
                if not (self._train_epoch(stop) and self._end_epoch(stop)):
                    break
        if self.workers.count > 1:
            place = (self.workers.rank, self.workers.count, self.module.digest())
            log.info("worker %d of %d: parameters %08x", *place)
        if not self.done:
            why, iteration = stop.reason or "another worker", self.progress.iteration
            log.info("stopped by %s after iteration %d; saved, go on with --resume", why, iteration)
        elif self.workers.rank == 0:
            self.reporter.end(self.progress, self.config.solver)
        return self.done

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or ``solver.stop_after`` of them brought no progress."""
        solver, epoch, best = self.config.solver, self.progress.epoch, self.progress.best_epoch
        stands_still = solver.stop_after and best and epoch - best >= solver.stop_after
        return epoch >= solver.epochs or bool(stands_still)

    def _train_epoch(self, stop: StopWish) -> bool:
        """Train the rest of the epoch; False if a request to stop ended it early."""
        every = self.config.solver.checkpoint_every
        self.batches.seek(self.progress.epoch, self.progress.batch)
        try:
            for batch in self.batches:
                self.step(batch)
                if self.workers.agree(stop.reason is not None):
                    self._save()
                    return False
                if every and self.progress.iteration % every == 0 and not self._at_end:
                    self._save()
        except RunError:  # training has diverged: the parameters are useless
            raise
        except Exception:  # a missing file, for example: what was learned can be saved
            # Several workers can only save together.
            whole = self.workers.count == 1 and not self._in_step
            if whole and self.progress.iteration > self._saved:
                with suppress(Exception):  # the first error is what counts
                    self._save()
            raise
        return True

    @property
    def _at_end(self) -> bool:
        """Whether the last batch of the epoch is done; :meth:`_end_epoch` saves there."""
        return self.progress.batch == len(self.batches)

    def step(self, batch: mx.io.DataBatch) -> None:
        """Train on one batch."""
        progress = self.progress
        self._in_step = True
        probabilities = self.module.step(batch, progress.iteration)
        loss = cross_entropy(probabilities, batch.label[0], self.dataset.ignore_id)
        self._watch_loss(loss, batch)
        progress.losses.append(loss)
        progress.batch += 1
        self._in_step = False
        self.reporter.step(self.batches.batch_size)
        if progress.batch % self.config.solver.log_every == 0 or self._at_end:
            self._log(probabilities, batch)

    def _log(self, probabilities: mx.nd.NDArray, batch: mx.io.DataBatch) -> None:
        """Report the losses since the last report, and the epoch's mIoU on such batches."""
        progress = self.progress
        confusion = confusion_matrix(
            batch.label[0].asnumpy().astype(np.uint8),
            probabilities.argmax(axis=1).asnumpy().astype(np.uint8),
            self.dataset.num_classes,
            self.dataset.ignore_id,
        )
        if progress.confusion:
            confusion += np.array(progress.confusion)
        progress.confusion = confusion.tolist()
        loss, miou = float(np.mean(progress.losses)), or_none(mean_score(iou(confusion)))
        progress.losses = []
        self.reporter.train(progress.epoch + 1, progress.iteration, self.module.lr, loss, miou)

    def _end_epoch(self, stop: StopWish) -> bool:
        """Save a finished epoch and validate it; False if a request to stop ended it early."""
        progress, solver = self.progress, self.config.solver
        params = self._save()
        writes = self.workers.rank == 0
        broken_off = bool(writes and self.frames) and not self._validate(params, stop)
        if self.workers.agree(broken_off):  # only the first validates, and all end together
            return False
        progress.epoch, progress.batch, progress.confusion = progress.epoch + 1, 0, []
        if writes:
            progress.log_bytes = self.run.log.length
            checkpoint.update_newest(self.run.path, progress, solver.keep_checkpoints)
        if self.module.learns_bn and progress.epoch >= solver.learn_bn_epochs:
            self.module.fix_bn(build_symbol(self.config, self.dataset, training=True), params)
        if solver.stop_after:
            progress.set_best(self.workers.from_first("best", progress.best_epoch or 0))
        return not self.workers.agree(stop.reason is not None)

    def _validate(self, params: tuple[Params, Params], stop: StopWish) -> bool:
        """Score the epoch; False if a request to stop ended that early."""
        progress, keep = self.progress, self.config.solver.keep_checkpoints
        symbol = build_symbol(self.config, self.dataset)
        segmenter = Segmenter(symbol, *params, self.config.network, self.context)
        scores = validate(segmenter, self.frames, self.dataset, stop, progress, self._validated)
        if scores is None:
            checkpoint.update_newest(self.run.path, progress, keep)
            return False
        self.reporter.validation(progress.epoch + 1, progress.iteration, scores)
        progress.val_miou = scores["val_miou"]
        better = progress.best_miou is None or (progress.val_miou or 0) > progress.best_miou
        if progress.val_miou is not None and better:
            progress.best, progress.best_miou = progress.name, progress.val_miou
        return True

    def _validated(self, number: int, frame: ScoredFrame) -> None:
        self.workers.get_on()
        self.reporter.frame(self.progress.iteration, number, len(self.frames), frame)

    def _save(self) -> tuple[Params, Params]:
        """Write a checkpoint and return its parameters; every worker has to call this."""
        progress = self.progress
        self.module.check_equal(progress.place)
        params, state = self.module.snapshot()
        self._saved = progress.iteration
        if self.workers.rank == 0:
            progress.log_bytes = self.run.log.length
            keep = self.config.solver.keep_checkpoints
            checkpoint.save(
                self.run.path, progress.name, join_params(*params), state, progress, keep
            )
        return params

    def _watch_loss(self, loss: float, batch: mx.io.DataBatch) -> None:
        """Raise ``RunError`` once the loss is no number, or has been far too high for long."""
        progress = self.progress
        progress.exploded = progress.exploded + 1 if loss > EXPLODED else 0
        if not math.isfinite(loss) or progress.exploded == EXPLODED_FOR:
            files = sorted({self.batches.reader.name(int(i)) for i in batch.index})
            # The loss is that of the saved parameters where nothing was learnt since.
            newest = progress.name if 0 < self._saved == progress.iteration else None
            place = (progress.iteration + 1, self.module.lr)
            raise lost(self.config.solver, loss, *place, files, newest)
