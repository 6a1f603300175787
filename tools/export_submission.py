r"""Make the archive that a benchmark's server accepts, or check one.

  python tools/export_submission.py --dataset cityscapes --predictions DIR --out cityscapes.zip
  python tools/export_submission.py --dataset kitti --predictions DIR --data-root data_road \
      --out kitti.zip
  python tools/export_submission.py --dataset voc --predictions DIR --out results.tar --comp comp5
  python tools/export_submission.py --dataset cityscapes --check cityscapes.zip

Predictions are those that tools/evaluate.py scores: train ids or label ids, for KITTI confidences
or probability maps. With --data-root the frames and sizes are those of its split; else those of the
official test set. An archive gets its name only when nothing is wrong with it; --check says
everything that is wrong with any archive.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from data_iter.datasets import Sample, find_samples
from data_iter.errors import DataError
from data_iter.files import read_label, read_size
from tools.archives import SubmissionError, check_archive, write_archive
from tools.kitti_bev import BEV_HW, read_calibration, to_bev
from tools.score_classes import values_kind
from tools.parallel import in_threads
from tools.score_files import files, frame_name, index
from tools.score_kitti import read_confidence, road_class, road_frame, road_maps
from tools.submissions import BENCHMARKS

Pictures = dict[str, Callable[[], np.ndarray]]


def label_pictures(dataset: DatasetSpec, predictions: Path, values: str | None) -> Pictures:
    """Find a folder's label maps; each callable reads one as official label ids (H, W) uint8."""
    if dataset.layout == "cityscapes":
        found = index(files(predictions, "**/*.png"), frame_name)
    else:
        found = index(files(predictions, "*.png"), lambda file: file.stem)
    if not found:
        raise DataError(f"{predictions}: no predictions (*.png) in it")
    paths = list(found.values())

    def count(path: Path) -> np.ndarray:
        return np.bincount(read_label(path).ravel(), minlength=256)

    kind = values_kind(dict(zip(paths, in_threads(count, paths, "Reading"))), dataset, values)
    lut = dataset.train_to_label if kind == "train_id" else np.arange(256, dtype=np.uint8)
    return {name: lambda path=path: lut[read_label(path)] for name, path in found.items()}


def road_pictures(dataset: DatasetSpec, predictions: Path, samples: list[Sample]) -> Pictures:
    """Find a folder's road maps; each callable reads one as confidences from above, (800, 400)."""
    found = road_maps(predictions)
    if not found:
        raise DataError(f"{predictions}: no predictions (*.png, *.npz) in it")
    images = {sample.name: sample.image for sample in samples}
    road = road_class(dataset)

    def read(frame: str) -> np.ndarray:
        confidence = read_confidence(found[frame], road)
        if confidence.shape == BEV_HW:
            return confidence
        category, _, number = frame.split("_")
        return from_above(confidence, found[frame], images.get(f"{category}_{number}"))

    return {frame: partial(read, frame) for frame in found}


def from_above(confidence: np.ndarray, file: Path, image: Path | None) -> np.ndarray:
    """Project a confidence map of ``image`` with the calibration file that belongs to it."""
    if image is None:
        raise ConfigError(
            f"{file}: a perspective map; --data-root is needed for its image and calibration file"
        )
    height, width = read_size(image)
    if confidence.shape != (height, width):
        raise DataError(
            f"{file}: the prediction is {confidence.shape[1]}x{confidence.shape[0]}, "
            f"its image {width}x{height} (width x height)"
        )
    calibration = image.parent.parent / "calib" / f"{image.stem}.txt"
    return to_bev(confidence, read_calibration(calibration))


def expected_sizes(
    dataset: DatasetSpec, samples: list[Sample]
) -> dict[str, tuple[int, int]] | None:
    """Give the frames that a split's submission has, with their images' (height, width)."""
    if not samples:
        return None
    sizes = in_threads(lambda sample: read_size(sample.image), samples, "Looking at the images")
    if dataset.layout != "kitti":
        return {sample.name: size for sample, size in zip(samples, sizes)}
    names = [sample.name for sample in samples]
    lanes = [name.replace("_", "_lane_") for name in names if name.startswith("um_")]
    return dict.fromkeys([*map(road_frame, names), *lanes], BEV_HW)


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, choices=sorted(BENCHMARKS))
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, help="folder of predictions")
    source.add_argument("--check", type=Path, metavar="FILE", help="check this archive")
    parser.add_argument("--data-root", type=Path, help="the data set's folder")
    parser.add_argument("--split", default="test", help="split of --data-root (default: test)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the archive, .zip or (voc) .tar")
    parser.add_argument("--values", choices=("label_id", "train_id"), help="what predictions hold")
    parser.add_argument(
        "--comp", choices=("comp5", "comp6"), default="comp6", help="VOC: which task"
    )
    args = parser.parse_args(argv)
    if not args.check and not args.out:
        parser.error("--out is needed: the archive to write")

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
                raise SubmissionError(str(args.check), problems)
        elif dataset.layout == "kitti":
            write_archive(args.out, benchmark, road_pictures(dataset, args.predictions, samples))
        else:
            write_archive(
                args.out, benchmark, label_pictures(dataset, args.predictions, args.values)
            )
    except SubmissionError as rejected:
        print("\n".join(rejected.problems))
        raise
    print(f"{args.check or args.out}: nothing is wrong with it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
