"""Scores on the whole images of a validation split, as ``tools/evaluate.py`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.frames import Frames
from data_iter.labels import to_train_ids

from .checkpoint import Progress
from .metrics import confusion_matrix, iou, mean_score, or_none, pixel_accuracy
from .segmenter import PixelSegmenter
from .stop import StopWish


class ScoredFrame(NamedTuple):
    """A labelled frame and what a network makes of it.

    ``image`` is (H, W, 3) uint8 RGB, ``truth`` and ``predicted`` (H, W) uint8 train ids.
    """

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    confusion: np.ndarray


def score_frame(
    segmenter: PixelSegmenter, frames: Frames, number: int, dataset: DatasetSpec
) -> ScoredFrame:
    """Predict one frame at its own size and compare it with its label at full resolution."""
    bgr, label = frames.read(number)
    image = bgr[:, :, ::-1]
    truth = to_train_ids(label, dataset.label_lut, frames.name(number))
    predicted = segmenter.labels(image)
    confusion = confusion_matrix(truth, predicted, dataset.num_classes, dataset.ignore_id)
    return ScoredFrame(image, truth, predicted, confusion)


def validate(
    segmenter: PixelSegmenter,
    frames: Frames,
    dataset: DatasetSpec,
    stop: StopWish,
    progress: Progress,
    seen: Callable[[int, ScoredFrame], None],
) -> dict[str, Any] | None:
    """Predict every frame at its own size, single scale, and score it at full resolution.

    Where ``stop`` ends it early, ``progress`` keeps what was counted, and the next call goes on
    from there. ``seen`` is called with the number of each frame and what became of it.

    Returns
    -------
    dict or None
        None where ``stop`` ended it early; else
        ``val_miou`` (0..1, over the classes that occur), ``val_pixel_accuracy`` and ``val_iou``, a
        list by train id, None for a class that neither truth nor prediction has; None for all
        where every label pixel is ignored.
    """
    confusion = np.zeros((dataset.num_classes,) * 2, np.int64)
    if progress.validated:
        confusion += np.array(progress.val_confusion)
    for number in range(progress.validated, len(frames)):
        if stop.reason:
            progress.validated, progress.val_confusion = number, confusion.tolist()
            return None
        frame = score_frame(segmenter, frames, number, dataset)
        confusion += frame.confusion
        seen(number, frame)
    progress.validated, progress.val_confusion = 0, []
    classes = iou(confusion)
    return {
        "val_miou": or_none(mean_score(classes)),
        "val_pixel_accuracy": or_none(pixel_accuracy(confusion)),
        "val_iou": [or_none(value) for value in classes],
    }
