"""From the ``[data]`` section to batches and validation frames."""

from __future__ import annotations

from pathlib import Path

from configs.datasets import DatasetSpec
from configs.schema import Config
from data_iter.crops import CropReader
from data_iter.frames import Frames, open_frames
from data_iter.segmentation_iter import SegmentationIter

from .machine import allowed_cores


def open_split(dataset: DatasetSpec, data_root: Path, split: str, cache_mb: int = 0) -> Frames:
    """Open the images and labels of a split; ``DataError`` says what is wrong with the folder."""
    return open_frames(dataset.layout, data_root, split, dataset.home, cache_mb)


def open_batches(
    config: Config, dataset: DatasetSpec, data_root: Path, workers: int = 1, rank: int = 0
) -> SegmentationIter:
    """Open the training batches: of ``workers`` parts the one with the number ``rank``."""
    data = config.data
    reader = CropReader(
        open_split(dataset, data_root, data.train_split, data.cache_mb),
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
        seed=config.experiment.seed,
        on_bad_sample=data.on_bad_sample,
        max_bad_share=data.max_bad_share,
    )
    return SegmentationIter(
        reader,
        config.solver.batch_size,
        *config.network.cell_layout,
        threads=data.threads or allowed_cores(),
        queue=data.queue,
        num_parts=workers,
        part_index=rank,
    )
