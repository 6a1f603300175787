"""Report a training: a bar on a terminal, lines elsewhere, and always ``log.jsonl``.

Scores are in percent for people, as ``tools/evaluate.py`` prints them, and from 0 to 1 in files.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from configs.datasets import DatasetSpec
from configs.schema import Solver

from .checkpoint import Progress
from .legend import add_legend
from .run_dir import RunDir
from .tensorboard import PICTURES, Board, strip
from .validation import ScoredFrame

log = logging.getLogger("train")


class Reporter:
    """Tells how training goes; use it as a context manager.

    Parameters
    ----------
    run : RunDir or None
        Its ``log.jsonl`` and ``tensorboard`` get every record. None: nothing is written, as in all
        workers of a distributed job except the first.
    epochs, iterations, done : int
        Length of the whole run, and the iterations that were finished before this start.
    dataset : DatasetSpec, optional
        Whose classes are validated.
    used : callable
        Gives the bytes that training holds.
    """

    def __init__(
        self,
        run: RunDir | None,
        epochs: int,
        iterations: int,
        done: int,
        dataset: DatasetSpec | None = None,
        used: Callable[[], int] = lambda: 0,
    ):
        self._run, self._epochs, self._iterations = run, epochs, iterations
        self._classes = [row.name for row in dataset.train_classes] if dataset else []
        self._dataset, self._used = dataset, used
        self._before = run.log.last_validation() if run else None
        self._board = Board(run.path, done) if run else None
        console = Console(stderr=True, markup=False)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        add = self._bar.add_task
        length = max(1, iterations // epochs)
        self._task = add("training", total=iterations, completed=done, scores="")
        self._epoch = add("epoch", total=length, completed=done % length, scores="")
        self._frames = add("validation", total=1, visible=False, scores="")
        self._since, self._samples, self._steps = time.monotonic(), 0, 0
        self._explained: set[str] = set()

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        if self._board:
            self._board.close()

    def say(self, *lines: str) -> None:
        """Write lines to ``train.log`` and to the screen."""
        for line in lines:
            log.info("%s", line)
            if not self._bar.disable:
                self._bar.console.print(line, markup=False, highlight=False)

    def step(self, samples: int) -> None:
        """Count an iteration of so many samples."""
        self._samples += samples
        self._steps += 1
        self._bar.advance(self._task)
        if self._bar.tasks[self._epoch].finished:
            self._bar.reset(self._epoch)
        self._bar.advance(self._epoch)

    def train(self, epoch: int, iteration: int, lr: float, loss: float, miou: float | None) -> None:
        """Report the training since the last report; ``epoch`` counts from 1.

        ``miou`` is None if no pixel of the crops has a class.
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        rate, pace = self._samples / seconds, seconds / max(self._steps, 1)
        self._since, self._samples, self._steps = time.monotonic(), 0, 0
        self._write(
            iteration,
            {"epoch": epoch, "iteration": iteration},
            {"lr": lr, "loss": loss, "train_miou": miou, "samples_per_second": round(rate, 3)},
            {"seconds": round(seconds, 3), "memory_mb": round(self._used() / 1e6)},
        )
        if miou is None:
            self._explain("the crops", "no pixel of them has a class, so nothing is learnt of them")
        shown = "-" if miou is None else f"{100 * miou:.1f} %"
        scores = f"loss {loss:.4f}  mIoU {shown}  {rate:.2f} samples/s"
        self._bar.update(self._task, scores=scores)
        of_epoch = epoch * (self._iterations // self._epochs) - iteration
        left = (_duration(pace * n) for n in (of_epoch, self._iterations - iteration))
        log.info(
            "epoch %d/%d  iteration %d/%d  lr %.3g  %s  left %s of the epoch, %s of the run",
            epoch, self._epochs, iteration, self._iterations, lr, scores, *left,
        )  # fmt: skip

    def frame(self, iteration: int, number: int, frames: int, frame: ScoredFrame) -> None:
        """Count a frame of the validation; TensorBoard shows the first few."""
        self._bar.update(
            self._frames, total=frames, completed=number + 1, visible=number + 1 < frames
        )
        if self._board and self._dataset and number < PICTURES:
            parts = (frame.image, frame.truth, frame.predicted)
            picture = add_legend(strip(*parts, self._dataset.palette), self._dataset)
            self._board.picture(iteration, f"validation/{number}", picture)

    def validation(self, epoch: int, iteration: int, scores: dict[str, Any]) -> None:
        """Report the scores on the validation split after ``epoch`` epochs, class by class."""
        seconds = round(time.monotonic() - self._since, 3)
        self._write(iteration, {"epoch": epoch}, scores, {"seconds": seconds})
        found = [(name, iou) for name, iou in zip(self._classes, scores["val_iou"])]
        if self._board:
            present = {f"val_iou/{name}": iou for name, iou in found if iou is not None}
            self._board.scalars(iteration, present)
        before = self._before or {"val_miou": None, "val_iou": [None] * len(found)}
        width = max(map(len, self._classes), default=0)
        self.say(
            f"epoch {epoch}  validation mIoU {_change(scores['val_miou'], before['val_miou'])}  "
            f"pixel accuracy {_change(scores['val_pixel_accuracy'], None)}",
            *(
                f"  {name:<{width}}  {_change(iou, old)}"
                for (name, iou), old in zip(found, before["val_iou"])
            ),
        )
        if scores["val_miou"] is None:
            self._explain("the validation split", "every label pixel is ignored: no score, no best")
        self._before = scores
        self._since, self._samples, self._steps = time.monotonic(), 0, 0

    def end(self, progress: Progress, solver: Solver) -> None:
        """Say how the run ended, where its results are, and which command to run next."""
        if self._run is None:
            return
        run = self._run.path
        why = f"after {progress.epoch} epochs"
        if progress.epoch < solver.epochs:
            why += f": {solver.stop_after} without a better validation mIoU (solver.stop_after)"
        lines = [f"done {why}; parameters, log.jsonl and tensorboard are in {run}"]
        epoch = ""
        if progress.best_miou is not None:
            epoch = " --epoch best"
            lines.append(
                f"best: epoch {progress.best_epoch}, validation mIoU "
                f"{100 * progress.best_miou:.2f} % ({progress.best}.params)"
            )
        lines.append(f"next: python tools/predict.py IMAGES --model {run}{epoch}")
        lines.append(f"      python tools/report.py curves {run} --out curves.png")
        self.say(*lines)

    def _explain(self, what: str, why: str) -> None:
        """Say once why a score is missing."""
        if what not in self._explained:
            self._explained.add(what)
            log.warning("%s: %s (python tools/prepare_data.py check shows the classes)", what, why)

    def _write(
        self, iteration: int, place: dict[str, int], scores: dict[str, Any], cost: dict[str, float]
    ) -> None:
        """Write a record; its cost in time and memory is no curve."""
        if self._run:
            self._run.log.append(**place, **scores, **cost)
        if self._board:
            numbers = {k: v for k, v in scores.items() if isinstance(v, float)}
            self._board.scalars(iteration, numbers)


def _change(score: float | None, before: float | None) -> str:
    """``47.31 % (+0.52)`` for a score 0..1 and the last one."""
    if score is None:
        return "    -"
    change = "" if before is None else f" ({100 * (score - before):+.2f})"
    return f"{100 * score:5.2f} %{change}"


def _duration(seconds: float) -> str:
    """``1 day, 2:03:04`` of a number of seconds, ``0:00:00`` at least."""
    return str(datetime.timedelta(seconds=max(0, round(seconds))))
