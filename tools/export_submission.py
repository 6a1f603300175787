r"""Make an archive for a benchmark's server, or check one.

  python tools/export_submission.py --dataset cityscapes --model runs/duc_hdc \
      --data-root cityscapes --out cityscapes.zip
  python tools/export_submission.py --dataset kitti --predictions DIR --data-root data_road \
      --out kitti.zip
  python tools/export_submission.py --dataset voc --predictions DIR --out results.tar --comp comp5
  python tools/export_submission.py --dataset cityscapes --check cityscapes.zip

Predictions are those that tools/evaluate.py scores: train ids or label ids, for KITTI confidences
or probability maps. A folder of tools/predict.py, which can average, refine and resume, is one.
With --data-root the frames and sizes are those of its split, otherwise those of the official test
set. An archive gets its name only if it has no fault; --check lists every fault of an archive.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # sets thread counts before anything loads

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from data_iter.datasets import Sample, find_samples
from data_iter.errors import DataError
from data_iter.image_files import read_label, read_size
from tools.scoring.classes import values_kind
from tools.scoring.kitti import read_confidence, road_class, road_frame, road_maps
from tools.scoring.kitti_bev import BEV_HW, read_calibration, to_bev
from tools.shared.options import add_epoch, read_epoch
from tools.shared.pairs import files, frame_name, index
from tools.shared.parallel import in_threads
from tools.submission.archives import (
    SubmissionError,
    check_archive,
    check_frames,
    write_archive,
)
from tools.submission.benchmarks import BENCHMARKS
from train.command import PROBLEMS
from train.errors import RunError

Pictures = dict[str, Callable[[], np.ndarray]]


def find_files(
    dataset: DatasetSpec, predictions: Path | None, samples: list[Sample]
) -> dict[str, Path]:
    """Find the source of each frame's picture: its prediction, or its image if there are none.

    Raises ``DataError`` if the folder of predictions is empty, and ``ConfigError`` if predictions
    need images that are not given.
    """
    if predictions is None:
        name = road_frame if dataset.layout == "kitti" else str
        return {name(sample.name): sample.image for sample in samples}
    if dataset.layout == "kitti":
        found = road_maps(predictions)
        for file in found.values() if not samples else ():
            if file.suffix == ".png" and read_size(file) != BEV_HW:
                raise _perspective(file)
    elif dataset.layout == "cityscapes":
        found = index(files(predictions, "**/*.png"), frame_name)
    else:
        found = index(files(predictions, "*.png"), lambda file: file.stem)
    if not found:
        suffixes = "*.png, *.npz" if dataset.layout == "kitti" else "*.png"
        raise DataError(f"{predictions}: no predictions ({suffixes}) in it")
    return found


def label_pictures(dataset: DatasetSpec, found: dict[str, Path], values: str | None) -> Pictures:
    """Return functions that read a frame's label map as official label ids (H, W) uint8."""
    paths = list(found.values())

    def count(path: Path) -> np.ndarray:
        return np.bincount(read_label(path).ravel(), minlength=256)

    kind = values_kind(dict(zip(paths, in_threads(count, paths, "Reading"))), dataset, values)
    lut = dataset.train_to_label if kind == "train_id" else np.arange(256, dtype=np.uint8)
    return {name: lambda path=path: lut[read_label(path)] for name, path in found.items()}


def road_pictures(dataset: DatasetSpec, found: dict[str, Path], samples: list[Sample]) -> Pictures:
    """Return functions that read a frame's road map as bird's-eye confidences, (800, 400)."""
    images = {sample.name: sample.image for sample in samples}

    def read(frame: str) -> np.ndarray:
        confidence = read_confidence(found[frame], dataset)
        if confidence.shape == BEV_HW:
            return confidence
        category, _, number = frame.split("_")
        return from_above(confidence, found[frame], images.get(f"{category}_{number}"))

    return {frame: partial(read, frame) for frame in found}


def model_pictures(
    dataset: DatasetSpec, found: dict[str, Path], args: argparse.Namespace
) -> Pictures:
    """Return functions with which the model segments a frame's image, one at a time."""
    # Loads MXNet, which is not needed for folders and checks.
    from tools.inference.predictor import load

    epoch = read_epoch(args.epoch)
    network = load(args.model, epoch=epoch, context=contexts(args.gpus)[0])
    learnt = network.dataset
    if learnt.train_classes != dataset.train_classes:
        raise RunError(
            f"{args.model}: its classes are those of {learnt.name}, not of {dataset.name}"
        )

    def label_ids(image: Path) -> np.ndarray:
        return dataset.train_to_label[network.labels(image)]

    def road(image: Path) -> np.ndarray:
        probability = network.probabilities(image)[road_class(dataset)]
        return from_above(np.rint(255 * probability).astype(np.uint8), image, image)

    picture = road if dataset.layout == "kitti" else label_ids
    return {frame: partial(picture, image) for frame, image in found.items()}


def from_above(confidence: np.ndarray, file: Path, image: Path | None) -> np.ndarray:
    """Project a confidence map of ``image`` with the image's calibration file."""
    if image is None:
        raise _perspective(file)
    height, width = read_size(image)
    if confidence.shape != (height, width):
        raise DataError(
            f"{file}: the prediction is {confidence.shape[1]}x{confidence.shape[0]}, "
            f"its image {width}x{height} (width x height)"
        )
    calibration = image.parent.parent / "calib" / f"{image.stem}.txt"
    return to_bev(confidence, read_calibration(calibration))


def _perspective(file: Path) -> ConfigError:
    return ConfigError(
        f"{file}: a perspective map; --data-root is needed for its image and calibration file"
    )


def expected_sizes(
    dataset: DatasetSpec, samples: list[Sample]
) -> dict[str, tuple[int, int]] | None:
    """Return the frames of a split's submission, with their images' (height, width)."""
    if not samples:
        return None
    sizes = in_threads(lambda sample: read_size(sample.image), samples, "Looking at the images")
    if dataset.layout != "kitti":
        return {sample.name: size for sample, size in zip(samples, sizes)}
    names = [sample.name for sample in samples]
    lanes = [name.replace("_", "_lane_") for name in names if name.startswith("um_")]
    return dict.fromkeys([*map(road_frame, names), *lanes], BEV_HW)


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", required=True, choices=sorted(BENCHMARKS))
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="run folder that segments --data-root's images")
    source.add_argument("--predictions", type=Path, help="folder of predictions")
    source.add_argument("--check", type=Path, metavar="FILE", help="check this archive")
    add_epoch(parser)
    add("--data-root", type=Path, help="the data set's folder")
    add("--split", default="test", help="split of --data-root (default: test)")
    add("--out", type=Path, metavar="FILE", help="the archive, .zip or (voc) .tar")
    add("--values", choices=("label_id", "train_id"), help="what predictions hold")
    add("--comp", choices=("comp5", "comp6"), default="comp6", help="VOC: which task")
    add("--gpus", help="number of the GPU for --model (default: the first, if any)")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    if not args.check and not args.out:
        raise ConfigError("--out is needed: the archive to write")
    if args.model and not args.data_root:
        raise ConfigError("--model needs --data-root: the folder with the images to segment")

    dataset = load_dataset(args.dataset)
    samples = []
    if args.data_root:
        samples = find_samples(
            dataset.layout, args.data_root, args.split, dataset.home, labelled=False
        )
    options = {"competition": args.comp} if args.dataset == "voc" else {}
    benchmark = BENCHMARKS[args.dataset](dataset, expected_sizes(dataset, samples), **options)
    try:
        if args.check:
            problems = check_archive(args.check, benchmark)
            if problems:
                print("\n".join(problems))
                print(f"error: {SubmissionError(str(args.check), problems)}", file=sys.stderr)
                return PROBLEMS
        else:
            found = find_files(dataset, args.predictions, samples)
            check_frames(args.out, benchmark, found.keys())
            if args.model:
                pictures = model_pictures(dataset, found, args)
            elif dataset.layout == "kitti":
                pictures = road_pictures(dataset, found, samples)
            else:
                pictures = label_pictures(dataset, found, args.values)
            threads = 1 if args.model else None  # the network uses all cores
            write_archive(args.out, benchmark, pictures, threads)
    except SubmissionError as error:
        print("\n".join(error.problems))
        raise
    print(f"{args.check or args.out}: nothing is wrong with it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
