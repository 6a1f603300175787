"""What a run says while it trains: a bar on a terminal, lines elsewhere, ``log.jsonl`` always."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .run_dir import RunDir
from .tensorboard import Board

log = logging.getLogger("train")


class Reporter:
    """Tells how training goes; use it as a context manager.

    Parameters
    ----------
    run : RunDir or None
        Its ``log.jsonl`` and ``tensorboard`` get every record; None: nothing is written, as in all
        workers of a distributed job but the first.
    epochs, iterations, done : int
        Length of the whole run, and the iterations that are done at the start.
    """

    def __init__(self, run: RunDir | None, epochs: int, iterations: int, done: int):
        self._run, self._epochs, self._iterations = run, epochs, iterations
        self._board = Board(run.path, done) if run else None
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=iterations, completed=done, scores="")
        self._since, self._samples = time.monotonic(), 0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        if self._board:
            self._board.close()

    def step(self, samples: int) -> None:
        """Count an iteration of so many samples."""
        self._samples += samples
        self._bar.advance(self._task)

    def train(self, epoch: int, iteration: int, lr: float, loss: float, miou: float) -> None:
        """Report the training since the last report; ``epoch`` counts from 1."""
        rate = self._samples / max(time.monotonic() - self._since, 1e-9)
        self._since, self._samples = time.monotonic(), 0
        self._write(
            iteration,
            {"epoch": epoch, "iteration": iteration},
            {"lr": lr, "loss": loss, "train_miou": miou, "samples_per_second": round(rate, 3)},
        )
        scores = f"loss {loss:.4f}  mIoU {miou:.3f}  {rate:.2f} samples/s"
        self._bar.update(self._task, scores=scores)
        log.info(
            "epoch %d/%d  iteration %d/%d  lr %.3g  %s",
            epoch, self._epochs, iteration, self._iterations, lr, scores,
        )  # fmt: skip

    def validation(self, epoch: int, iteration: int, scores: dict[str, Any]) -> None:
        """Report the scores on the validation split after ``epoch`` epochs."""
        self._write(iteration, {"epoch": epoch}, scores)
        line = (
            f"epoch {epoch}  validation mIoU {scores['val_miou']:.4f}  "
            f"pixel accuracy {scores['val_pixel_accuracy']:.4f}"
        )
        log.info(line)
        if not self._bar.disable:
            self._bar.console.print(line)
        self._since, self._samples = time.monotonic(), 0

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        """Show a picture (H, W, 3) uint8 RGB in TensorBoard."""
        if self._board:
            self._board.picture(iteration, name, picture)

    def _write(self, iteration: int, place: dict[str, int], scores: dict[str, Any]) -> None:
        if self._run:
            self._run.log(**place, **scores)
        if self._board:
            numbers = {k: v for k, v in scores.items() if isinstance(v, float)}
            self._board.scalars(iteration, numbers)
