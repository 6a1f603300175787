"""Validation: an interruption loses no frame, and the launcher is told of its progress."""

import os

import numpy as np

from configs.datasets import load_dataset
from train.checkpoint import Progress
from train.distributed import STEPS_FD
from train.distributed.workers import Workers
from train.stop import StopWish
from train.validation import validate


class Frames:
    """Five frames of 3x5 pixels: class 0 left of a column that differs from frame to frame."""

    def __len__(self):
        return 5

    def name(self, number):
        return f"{number}.png"

    def read(self, number):
        label = np.ones((3, 5), np.uint8)
        label[:, :number] = 0
        return np.zeros((3, 5, 3), np.uint8), label


class AllOnes:
    """Predicts class 1 everywhere, and requests a stop after ``after`` frames."""

    def __init__(self, stop=None, after=99):
        self.count, self._stop, self._after = 0, stop, after

    def labels(self, image):
        self.count += 1
        if self.count == self._after:
            self._stop._signal = "SIGTERM"
        return np.ones(image.shape[:2], np.uint8)


def test_an_interrupted_validation_goes_on_from_where_it_was():
    dataset = load_dataset("camvid")
    whole = validate(AllOnes(), Frames(), dataset, StopWish(), Progress(), lambda *seen: None)
    assert whole["val_iou"][:2] == [0, 3 * (5 + 4 + 3 + 2 + 1) / 75]  # class 1 in 45 of 75 pixels
    progress, stop = Progress(), StopWish()
    first, numbers = AllOnes(stop, after=2), []
    ended = validate(
        first, Frames(), dataset, stop, progress, lambda number, frame: numbers.append(number)
    )
    assert ended is None
    assert (progress.validated, np.sum(progress.val_confusion)) == (2, 30)
    rest = AllOnes()
    found = validate(
        rest, Frames(), dataset, StopWish(), progress, lambda number, frame: numbers.append(number)
    )
    assert found == whole
    assert (first.count, rest.count, numbers) == (2, 3, [0, 1, 2, 3, 4])
    assert progress == Progress()


def test_the_launcher_hears_that_a_validation_gets_on(monkeypatch):
    """The worker sends its iteration count again, so the launcher sees that it does not hang."""
    reading, writing = os.pipe()
    monkeypatch.setenv(STEPS_FD, str(writing))
    workers = Workers("dist_sync")
    workers.agree(False)
    workers.get_on()
    workers.get_on()
    assert os.read(reading, 99) == b"1\n1\n1\n"
