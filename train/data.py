"""From the ``[data]`` section to batches and validation frames."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.crops import CropReader
from data_iter.datasets import left_out
from data_iter.frames import Frames, open_frames
from data_iter.listing import shortened
from data_iter.records import is_prepared
from data_iter.segmentation_iter import SegmentationIter

from .errors import RunError
from .machine import allowed_cores
from .network import cell_layout

log = logging.getLogger("train")


def open_split(
    dataset: DatasetSpec, data_root: Path, split: str, cache_mb: int = 0, labelled: bool = True
) -> Frames:
    """Open the images and labels of a split; ``DataError`` says what is wrong with the folder.

    Without ``labelled``, a missing label is an error only when it is read. Unused files in the
    folder are logged.
    """
    frames = open_frames(dataset.layout, data_root, split, dataset.home, cache_mb, labelled)
    if not is_prepared(data_root):
        for part in split.split("+"):
            for what, names in zip(
                ("labels without an image", "no image or label"),
                left_out(dataset.layout, data_root, part),
            ):
                if names:
                    log.warning("split %s: left out, %s: %s", part, what, shortened(names))
    return frames


def with_class_weights(config: Config, dataset: DatasetSpec, reader: CropReader) -> Config:
    """Compute ``solver.class_weights = auto`` from the labels of the training split.

    A class's weight is the square root of (median frequency / its frequency), scaled so that the
    mean over all pixels is 1 (after Eigen and Fergus, arXiv:1411.4734, whose rule has no root).

    Raises
    ------
    RunError
        No pixel has a class.
    """
    if config.solver.class_weights != ("auto",):
        return config
    counts = reader.count_classes()[: dataset.num_classes]
    if not counts.sum():
        raise RunError(
            "solver.class_weights = auto: every pixel of the training labels is ignored, so there "
            "is nothing to learn"
        )
    shares = counts / counts.sum()
    there = shares > 0
    weights = np.ones(len(shares))
    weights[there] = np.sqrt(np.median(shares[there]) / shares[there])
    weights[there] /= (shares * weights)[there].sum()
    named = tuple(float(f"{weight:.3g}") for weight in weights)
    return dataclasses.replace(
        config, solver=dataclasses.replace(config.solver, class_weights=named)
    )


def open_batches(
    config: Config, dataset: DatasetSpec, data_root: Path, workers: int = 1, rank: int = 0
) -> SegmentationIter:
    """Open the training batches of worker ``rank``, one of ``workers`` equal parts."""
    data = config.data
    reader = CropReader(
        open_split(
            dataset, data_root, data.train_split, data.cache_mb, data.on_bad_sample == "stop"
        ),
        label_lut=dataset.label_lut,
        ignore_id=dataset.ignore_id,
        mean_rgb=config.network.mean_rgb,
        crop_hw=data.crop_hw,
        patches=data.patches,
        patch_hw=data.patch_hw,
        patch_stride=data.patch_stride,
        patch_jitter=data.patch_jitter,
        scales=data.scales,
        mirror=data.mirror,
        jitter=data.jitter,
        blur=data.blur,
        rotate=data.rotate,
        seed=config.experiment.seed,
        on_bad_sample=data.on_bad_sample,
        max_bad_share=data.max_bad_share,
    )
    return SegmentationIter(
        reader,
        config.solver.batch_size,
        *cell_layout(config.network),
        threads=data.threads or allowed_cores(),
        queue=data.queue,
        num_parts=workers,
        part_index=rank,
    )
