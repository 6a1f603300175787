"""Scores on the whole images of a validation split, as ``tools/evaluate.py`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.frames import Frames
from data_iter.labels import to_train_ids

from .metrics import confusion_matrix, iou, mean_score, pixel_accuracy
from .network import build_symbol
from .params import Params
from .segmenter import PixelSegmenter, Segmenter
from .stop import StopWish
from .tensorboard import PICTURES, strip


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
    config: Config,
    dataset: DatasetSpec,
    frames: Frames,
    params: tuple[Params, Params],
    context: mx.Context,
    stop: StopWish,
    show: Callable[[str, np.ndarray], None],
) -> dict[str, Any] | None:
    """Predict every frame at its own size, single scale, and score it at full resolution.

    ``show`` gets the name and a strip (h, 3 * w, 3) uint8 RGB of the first few: image, label and
    prediction.

    Returns
    -------
    dict or None
        None where ``stop`` ended it early; else
        ``val_miou`` (0..1, over the classes that occur), ``val_pixel_accuracy`` and ``val_iou``, a
        list by train id, None for a class that neither truth nor prediction has.
    """
    segmenter = Segmenter(build_symbol(config, dataset), *params, config.network, context)
    confusion = np.zeros((dataset.num_classes,) * 2, np.int64)
    for number in range(len(frames)):
        if stop.reason:
            return None
        image, truth, predicted, counts = score_frame(segmenter, frames, number, dataset)
        if number < PICTURES:
            show(f"validation/{number}", strip(image, truth, predicted, dataset.palette))
        confusion += counts
    classes = iou(confusion)
    return {
        "val_miou": mean_score(classes),
        "val_pixel_accuracy": pixel_accuracy(confusion),
        "val_iou": [None if np.isnan(value) else float(value) for value in classes],
    }
