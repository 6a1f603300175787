"""What a run says while it trains: a bar on a terminal, lines elsewhere, ``log.jsonl`` always."""

from __future__ import annotations

import logging
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .run_dir import RunDir

log = logging.getLogger("train")


class Reporter:
    """Tells how training goes; use it as a context manager.

    Parameters
    ----------
    run : RunDir
        Its ``log.jsonl`` gets every record.
    epochs, iterations, done : int
        Length of the whole run, and the iterations that are done at the start.
    """

    def __init__(self, run: RunDir, epochs: int, iterations: int, done: int):
        self._run, self._epochs, self._iterations = run, epochs, iterations
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

    def step(self, samples: int) -> None:
        """Count an iteration of so many samples."""
        self._samples += samples
        self._bar.advance(self._task)

    def train(self, epoch: int, iteration: int, lr: float, loss: float, miou: float) -> None:
        """Report the training since the last report; ``epoch`` counts from 1."""
        rate = self._samples / max(time.monotonic() - self._since, 1e-9)
        self._since, self._samples = time.monotonic(), 0
        self._run.log(
            epoch=epoch, iteration=iteration, lr=lr, loss=loss, train_miou=miou,
            samples_per_second=round(rate, 3),
        )  # fmt: skip
        scores = f"loss {loss:.4f}  mIoU {miou:.3f}  {rate:.2f} samples/s"
        self._bar.update(self._task, scores=scores)
        log.info(
            "epoch %d/%d  iteration %d/%d  lr %.3g  %s",
            epoch, self._epochs, iteration, self._iterations, lr, scores,
        )  # fmt: skip

    def validation(self, epoch: int, scores: dict[str, Any]) -> None:
        """Report the scores on the validation split after ``epoch`` epochs."""
        self._run.log(epoch=epoch, **scores)
        log.info(
            "epoch %d  validation mIoU %.4f  pixel accuracy %.4f",
            epoch, scores["val_miou"], scores["val_pixel_accuracy"],
        )  # fmt: skip
        self._since, self._samples = time.monotonic(), 0
