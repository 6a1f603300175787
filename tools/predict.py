r"""Segment an image, or every image in a folder.

  python tools/predict.py image.png
  python tools/predict.py FOLDER --model runs/duc_hdc --out results
  python tools/predict.py FOLDER --scales 0.5,0.75,1,1.25,1.5,2 --flip --save-probabilities
  python tools/predict.py FOLDER --num-parts 4 --part-index 0 --resume

Each image NAME.* gives NAME.png, an 8-bit palette PNG of train ids in the image's size, and
NAME_overlay.jpg for the eye. Images may have any size. Without --model the embedded network
answers, which was trained on CamVid.

--tile H,W bounds the memory that a large image takes. With an overlap of twice the network's
receptive radius or more, and scales in steps of 1/4, the result is that of the whole image;
otherwise pixels near the seams differ, and a line says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # first: sets threads before MXNet loads

import argparse
import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from configs.loader import load_config
from data_iter.image_files import exif_orientation, read_image
from data_iter.listing import shortened
from tools.inference.averaging import TILE_STEP, Averager
from tools.inference.backends import BACKENDS, fastest_backend, load_segmenter
from tools.inference.images import (
    Refine,
    find_images,
    is_predicted,
    overlapped,
    segment,
    write_result,
)
from tools.shared.options import add_model, numbers, parse_hw
from tools.shared.parallel import processes


@contextmanager
def crf_process(run_dir: Path) -> Iterator[Refine]:
    """Give the CRF of a run's configuration, at work beside the network in a process of its own."""
    from tools.inference.dense_crf import refine  # needs pydensecrf

    crf = load_config(run_dir / "config.cfg").crf
    with processes(1) as pool:
        yield lambda image, probabilities: pool.submit(refine, image, probabilities, crf)


def print_shares(counts: np.ndarray, dataset: DatasetSpec, console: Console) -> None:
    """Print each class's share of all pixels, the largest first."""
    table = Table("class", "share %", title="share of each class")
    table.columns[1].justify = "right"
    for train_id in np.argsort(-counts, kind="stable"):
        share = 100 * counts[train_id] / counts.sum()
        table.add_row(dataset.train_classes[train_id].name, f"{share:.2f}")
    console.print(table)


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("images", type=Path, help="an image, or a folder with images, at any depth")
    add_model(parser)
    add("--out", type=Path, default=Path("predictions"), help="default: ./predictions")
    add("--scales", default="1", help="sizes to average over, as in 0.75,1,1.25 (default: 1)")
    add("--flip", action="store_true", help="average with the mirror image too")
    add("--tile", metavar="H,W", help=f"largest piece, multiples of {TILE_STEP}")
    add("--overlap", type=int, help="of tiles (default: 2 receptive radii, at most half a tile)")
    add("--crf", action="store_true", help="refine with the CRF of the model's configuration")
    add("--save-probabilities", action="store_true", help="NAME.npz, 16 bits a class and pixel")
    add("--num-parts", type=int, default=1, help="share the images between that many machines")
    add("--part-index", type=int, default=0, help="which share is this one's, from 0")
    add("--resume", action="store_true", help="skip images whose results are there and whole")
    backends = ("mxnet", *BACKENDS, "auto")
    add("--backend", choices=backends, default="mxnet", help="auto: the fastest that is installed")
    add("--gpus", help="number of the GPU to use (default: the first, if any)")
    return parser


def choose_images(args: argparse.Namespace) -> list[Path]:
    """List the images that are this call's to segment."""
    if args.num_parts < 1:
        raise ConfigError(f"--num-parts {args.num_parts}: expected at least 1")
    if not 0 <= args.part_index < args.num_parts:
        raise ConfigError(
            f"--part-index {args.part_index}: expected 0 to {args.num_parts - 1} for "
            f"--num-parts {args.num_parts}"
        )
    images, others = find_images(args.images, args.out)
    if others:
        print(f"left out, not images by their names: {shortened(others)}")
    images = images[args.part_index :: args.num_parts]
    if args.resume:
        images = [p for p in images if not is_done(p, args.out, args.save_probabilities)]
    return images


def is_done(image: Path, out: Path, probabilities: bool) -> bool:
    """Whether all that is asked for of an image is there and whole."""
    wanting = probabilities and not (out / f"{image.stem}.npz").is_file()
    return not wanting and is_predicted(image, out / f"{image.stem}.png")


def print_turned(images: list[Path]) -> None:
    """Name the JPEGs, if any, that carry an EXIF rotation: they are seen as they are stored."""
    jpegs = (image for image in images if image.suffix.lower() != ".png")
    turned = [image for image in jpegs if exif_orientation(image) != 1]
    if turned:
        others = f" and {len(turned) - 1} more" if turned[1:] else ""
        print(f"{turned[0]}{others}: the EXIF rotation is not applied; save such images upright")


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    scales = numbers("--scales", args.scales, "float")
    tile = parse_hw("--tile", args.tile)
    images = choose_images(args)
    if not images:
        print("nothing left to segment")
        return 0
    context = contexts(args.gpus)[0]
    backend = args.backend
    if backend == "auto":
        backend = fastest_backend(args.model, context)
        print(f"computing with {backend}")
    segmenter, dataset = load_segmenter(args.model, args.epoch, context, backend)
    averager = Averager(segmenter, scales, args.flip, tile, args.overlap)
    args.out.mkdir(parents=True, exist_ok=True)
    if not averager.exact:
        print(
            f"tiles overlap by {averager.overlap} pixels, the network sees {averager.radius} far: "
            "pixels near the seams may differ from those of the whole image (they don't with an "
            "overlap of twice as far and scales in steps of 1/4)"
        )
    print_turned(images)
    write = functools.partial(write_result, out=args.out, dataset=dataset)
    console = Console()
    alone = len(images) == 1
    with crf_process(args.model) if args.crf else nullcontext() as refine:
        compute = functools.partial(
            segment, averager=averager, refine=refine, keep=args.save_probabilities
        )
        results = overlapped(images, read_image, compute, write)
        counts = sum(track(results, "segmenting", len(images), disable=alone, console=console))
    print_shares(counts, dataset, console)
    print(f"{len(images)} segmented, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
