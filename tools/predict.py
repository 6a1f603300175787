r"""Segment images, folders of images, videos, or a camera's pictures.

  python tools/predict.py image.png other.jpg FOLDER "more/**/*.png"
  python tools/predict.py FOLDER --model runs/duc_hdc --epoch best --out results
  python tools/predict.py FOLDER --scales 0.5,0.75,1,1.25,1.5,2 --flip --save-probabilities
  python tools/predict.py FOLDER --num-parts 4 --part-index 0 --resume
  python tools/predict.py drive.mp4 --every 5 --legend
  find . -name "*.png" | python tools/predict.py -

A source is a file, a folder, a pattern, a list file (.txt, a name on each line), - for names on
standard input, a video, or the number of a camera. Each image NAME.* gives NAME.png, an 8-bit
palette PNG of train ids in the image's size, and NAME_overlay.jpg to look at. A video gives
NAME_overlay.mp4, and with --save-labels a folder NAME_labels. After Ctrl-C the film so far can be
played. Images may have any size. --model is a run folder or an ONNX file of export_onnx.py; the
default is the embedded network, which was trained on CamVid.

--long-side auto (the default) shows an image to the network at the size of its training images if
the image is more than 1.5 times as large or as small. Results have the image's own size.

--tile H,W bounds the memory for a large image. With an overlap of at least twice the network's
receptive radius, and scales in steps of 1/4, the result equals that of the whole image. Otherwise
pixels near the seams differ, and the command says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # first: sets threads before MXNet loads

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track
from rich.table import Table

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from configs.schema import Crf
from data_iter.errors import DataError
from data_iter.image_files import exif_orientation, read_image, read_size
from data_iter.listing import shortened
from tools.inference.averaging import TILE_STEP
from tools.inference.backends import BACKENDS, fastest_backend
from tools.inference.files import is_predicted, results_of
from tools.inference.images import (
    Refine,
    check_maps_fit,
    overlapped,
    segment,
    write_result,
)
from tools.inference.predictor import Predictor, load
from tools.inference.sources import Sources, find_sources
from tools.inference.video import Film, film_results, remove_labels, segment_film
from tools.shared.options import (
    add_model,
    add_parts,
    at_least_one,
    numbers,
    parse_hw,
    read_epoch,
    read_part,
)
from tools.shared.parallel import processes
from train.atomic import new_folder
from train.command import PROBLEMS


@contextmanager
def crf_process(crf: Crf) -> Iterator[Refine]:
    """Yield the CRF, which works in its own process beside the network."""
    from tools.inference.dense_crf import refine  # needs pydensecrf

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
    add("sources", nargs="+", help="images, folders, patterns, lists, -, videos, cameras")
    add_model(parser)
    add("--out", type=Path, default=Path("predictions"), help="default: ./predictions")
    add("--long-side", default="auto", metavar="auto|off|N", help="at which images are seen")
    add("--scales", default="1", help="sizes to average over, as in 0.75,1,1.25 (default: 1)")
    add("--flip", action="store_true", help="average with the mirror image too")
    add("--tile", metavar="H,W", help=f"largest piece, multiples of {TILE_STEP}")
    add("--overlap", type=int, help="of tiles (default: 2 receptive radii, at most half a tile)")
    add("--crf", action="store_true", help="refine with the CRF of the model's configuration")
    add("--legend", action="store_true", help="show the classes' names and colours in overlays")
    add("--save-probabilities", action="store_true", help="NAME.npz, 16 bits a class and pixel")
    add("--every", type=int, default=1, metavar="N", help="of a video, take one frame of N")
    add("--save-labels", action="store_true", help="of a video, the frames' label files too")
    add("--on-bad", choices=("stop", "skip"), default="stop", help="at an unreadable image")
    add_parts(parser, "images")
    add("--resume", action="store_true", help="skip images whose results are there and whole")
    backends = ("mxnet", *BACKENDS, "auto")
    add("--backend", choices=backends, help="default: mxnet, of ONNX files onnxruntime")
    add("--ignore-memory", action="store_true", help="also try images that seem too large")
    add("--gpus", help="number of the GPU to use (default: the first, if any)")
    return parser


def choose_sources(args: argparse.Namespace) -> Sources:
    """Find the images of this call's share, and the videos."""
    part = read_part(args)
    at_least_one("--every", args.every)
    images, videos, others = find_sources(args.sources, args.out)
    if others:
        print(f"left out, not images by their names: {shortened(others)}")
    if videos and (args.crf or args.save_probabilities):
        raise ConfigError("--crf and --save-probabilities: not for videos")
    images = images[part]
    if args.resume:
        images = [p for p in images if not is_done(p, args.out, args.save_probabilities)]
    return Sources(images, videos, others)


def read_long_side(text: str) -> int | str | None:
    """Read the value of ``--long-side``."""
    if text in ("auto", "off"):
        return text if text == "auto" else None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--long-side {text}: expected auto, off or a number of pixels")
    return int(text)


def is_done(image: Path, out: Path, probabilities: bool) -> bool:
    """Whether all requested results of an image are there and whole."""
    results = results_of(image, out)
    wanting = probabilities and not results.probabilities.is_file()
    return not wanting and is_predicted(image, results.labels)


def print_turned(images: list[Path]) -> None:
    """Name the JPEGs with an EXIF rotation, if any: the rotation is not applied."""
    jpegs = (image for image in images if image.suffix.lower() != ".png")
    turned = [image for image in jpegs if exif_orientation(image) != 1]
    if turned:
        others = f" and {len(turned) - 1} more" if turned[1:] else ""
        print(f"{turned[0]}{others}: the EXIF rotation is not applied; save such images upright")


def print_resizing(images: list[Path], network: Predictor) -> None:
    """Report images that the network sees at another size than their own."""
    for image in images[:1]:
        height, width = read_size(image)
        factor = network.factor(np.empty((height, width, 0)))
        if factor != 1:
            print(
                f"{image}: {width}x{height}, seen at {round(width * factor)}x"
                f"{round(height * factor)}, the training images' scale (--long-side off: its own)"
            )


def segment_images(
    images: list[Path], network: Predictor, args: argparse.Namespace, console: Console
) -> list[str]:
    """Segment image files; return the faults of those that were skipped."""
    bad: list[str] = []

    def read(path: Path) -> np.ndarray | None:
        try:
            return read_image(path)
        except DataError as error:
            if args.on_bad == "stop":
                raise
            bad.append(str(error))
            return None

    with crf_process(network.config.crf) if args.crf else nullcontext() as refine:

        def compute(image: np.ndarray | None):
            keep = args.save_probabilities
            return None if image is None else segment(image, network, refine, keep)

        def write(path: Path, image: np.ndarray | None, result) -> np.ndarray | int:
            if image is None:
                return 0
            return write_result(path, image, result, args.out, network.dataset, args.legend)

        results = overlapped(images, read, compute, write)
        alone = len(images) == 1
        counts = sum(track(results, "segmenting", len(images), disable=alone, console=console))
    if len(bad) < len(images):
        print_shares(counts, network.dataset, console)
    return bad


def segment_video(
    source: Path | int, network: Predictor, args: argparse.Namespace, console: Console
) -> None:
    """Segment a video, with progress in frames per second."""
    out, labels_folder = film_results(source, args.out)
    name, labels_to = out.stem, labels_folder if args.save_labels else None
    with closing(Film(source)) as film, Progress(console=console, transient=True) as progress:
        if labels_to:
            labels_to.mkdir(exist_ok=True)
            remove_labels(labels_to)
        total = -(-film.promised // args.every) or None
        task = progress.add_task(escape(name), total=total)
        counts = np.zeros(network.dataset.num_classes, np.int64)
        done = 0
        for frame in segment_film(film, out, network, args.every, labels_to, args.legend):
            counts, done = counts + frame, done + 1
            speed = progress.tasks[0].speed or 0
            said = escape(f"{name}, {speed:.1f} frames a second")
            progress.update(task, advance=1, description=said)
    print_shares(counts, network.dataset, console)
    print(f"{out}: {done} frames")
    if total and done < total:
        raise DataError(f"{film.name}: {total} frames announced, {done} readable (truncated?)")


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    with new_folder(args.out):
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; return the exit code."""
    scales = numbers("--scales", args.scales, "float")
    tile_hw, long_side = parse_hw("--tile", args.tile), read_long_side(args.long_side)
    epoch = read_epoch(args.epoch)
    images, videos, _ = choose_sources(args)
    if not images and not videos:
        print("nothing left to segment")
        return 0
    context, backend = contexts(args.gpus)[0], args.backend
    if backend == "auto":
        backend = fastest_backend(args.model, context)
        print(f"computing with {backend}")
    network = load(
        args.model, epoch=epoch, backend=backend, context=context,
        scales=scales, flip=args.flip, tile_hw=tile_hw, overlap=args.overlap, long_side=long_side,
    )  # fmt: skip
    network.segmenter.check_memory = not args.ignore_memory
    averager = network.averager
    if not averager.exact:
        print(
            f"tiles overlap by {averager.overlap} pixels, the network sees {averager.radius} far: "
            "pixels near the seams may differ from those of the whole image (they don't with an "
            "overlap of twice as far and scales in steps of 1/4)"
        )
    console = Console(markup=False)
    bad: list[str] = []
    if images:
        if args.on_bad == "stop":
            print_turned(images)
            print_resizing(images, network)
        if args.save_probabilities:
            check_maps_fit(images, network, args.out)
        bad = segment_images(images, network, args, console)
    for video in videos:
        segment_video(video, network, args, console)
    for sentence in bad:
        print(f"skipped: {sentence}", file=sys.stderr)
    if images:
        print(f"{len(images) - len(bad)} segmented, in {args.out}")
    return PROBLEMS if bad else 0


if __name__ == "__main__":
    sys.exit(main())
