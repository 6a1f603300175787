r"""Segment an image, or every image in a folder.

  python tools/predict.py image.png
  python tools/predict.py FOLDER --model runs/duc_hdc --out results

Each image NAME.* gives NAME.png, an 8-bit palette PNG of train ids in the image's size, and
NAME_overlay.jpg for the eye. Images may have any size. Without --model the embedded network
answers, which was trained on CamVid.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # first: sets threads before MXNet loads

import argparse
import functools

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs.datasets import DatasetSpec
from data_iter.files import read_image
from tools.inference import (
    EMBEDDED,
    find_images,
    load_segmenter,
    overlapped,
    write_labels,
    write_overlay,
)


def write_result(
    image_file: Path, image: np.ndarray, labels: np.ndarray, out: Path, dataset: DatasetSpec
) -> np.ndarray:
    """Write one image's files, the label file last, and return its pixels of each class."""
    write_overlay(out / f"{image_file.stem}_overlay.jpg", image, labels, dataset)
    write_labels(out / f"{image_file.stem}.png", labels, dataset)
    return np.bincount(labels.ravel(), minlength=dataset.num_classes)


def print_shares(counts: np.ndarray, dataset: DatasetSpec, console: Console) -> None:
    """Print each class's share of all pixels, the largest first."""
    table = Table("class", "share %", title="share of each class")
    table.columns[1].justify = "right"
    for train_id in np.argsort(-counts, kind="stable"):
        share = 100 * counts[train_id] / counts.sum()
        table.add_row(dataset.train_classes[train_id].name, f"{share:.2f}")
    console.print(table)


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="an image, or a folder with images")
    parser.add_argument(
        "--model", type=Path, default=EMBEDDED, help="run folder (default: models/camvid)"
    )
    parser.add_argument("--epoch", type=int, help="of the parameters (default: the newest)")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="default: ./predictions"
    )
    parser.add_argument("--gpus", help="number of the GPU to use (default: the first, if any)")
    args = parser.parse_args(argv)

    images = find_images(args.images, args.out)
    segmenter, dataset = load_segmenter(args.model, args.epoch, contexts(args.gpus)[0])
    args.out.mkdir(parents=True, exist_ok=True)
    write = functools.partial(write_result, out=args.out, dataset=dataset)
    console = Console()
    counts = sum(
        track(
            overlapped(images, read_image, segmenter.labels, write),
            "segmenting",
            len(images),
            disable=len(images) == 1,
            console=console,
        )
    )
    print_shares(counts, dataset, console)
    print(f"{len(images)} predicted, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
