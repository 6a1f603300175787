"""Draw the training crops of a configuration, with their labels over them.

    python tools/show_batch.py --config configs/duc_hdc.cfg --data-root DIR --out batch.png

Each sample is a crop, and the crop under its label, which is unpacked from the cells of the loss.
Ignored pixels are dark. The classes' names and colours stand below.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse

import cv2
import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Config
from data_iter.cells import unpack_scores
from tools.shared.pictures import colours, overlay
from train.atomic import atomic_write
from train.data import open_batches
from train.legend import add_legend
from train.network import cell_layout

COLUMNS = 4  # samples side by side, two pictures each
GAP = 6  # pixels of white between pictures
DARK = 3  # ignored pixels have a third of their brightness
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("batch.png"), help="default: batch.png")
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument("--batch", type=int, default=0, help="of the epoch, from 0")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args(argv)

    if args.out.suffix.lower() not in (".png", ".jpg"):
        raise ConfigError(f"--out {args.out}: expected a name that ends in .png or .jpg")
    if args.epoch < 0:
        raise ConfigError(f"--epoch {args.epoch}: expected at least 0")
    config = load_config(args.config, args.set)
    dataset = load_dataset(config.data.dataset)
    batches = open_batches(config, dataset, args.data_root)
    if not 0 <= args.batch < len(batches):
        batches.close()
        raise ConfigError(f"--batch {args.batch}: an epoch has batches 0 to {len(batches) - 1}")
    batches.seek(args.epoch, args.batch)
    batch = batches.next()
    batches.close()
    grid = draw(batch, config, dataset)
    with atomic_write(args.out) as file:
        file.write_bytes(cv2.imencode(args.out.suffix, grid[:, :, ::-1], QUALITY)[1].tobytes())
    print(f"{args.out}: batch {args.batch} of epoch {args.epoch}, {len(batch.index)} crops")
    return 0


def draw(batch: mx.io.DataBatch, config: Config, dataset: DatasetSpec) -> np.ndarray:
    """Draw a batch as a grid (H, W, 3) uint8 RGB."""
    cell, block = cell_layout(config.network)
    feature_hw = tuple(side // (cell * block) for side in config.data.crop_hw)
    packed = batch.label[0].asnumpy().astype(np.uint8)
    labels = unpack_scores(packed, feature_hw, block).repeat(cell, 1).repeat(cell, 2)
    painted = colours(labels, dataset)
    mean = np.asarray(config.network.mean_rgb, np.float32)
    pixels = batch.data[0].asnumpy().transpose(0, 2, 3, 1) + mean
    images = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    ignored = (labels == dataset.ignore_id)[..., None]
    over = np.where(ignored, images // DARK, overlay(images, painted))
    pictures = np.concatenate([images, over], axis=2)
    pictures = np.pad(pictures, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    columns = min(COLUMNS, len(pictures))
    empty = -len(pictures) % columns
    pictures = np.pad(pictures, ((0, empty), (0, 0), (0, 0), (0, 0)), constant_values=255)
    rows = [np.hstack(list(row)) for row in np.split(pictures, len(pictures) // columns)]
    return add_legend(np.vstack(rows), dataset)


if __name__ == "__main__":
    sys.exit(main())
