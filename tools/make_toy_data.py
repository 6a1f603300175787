"""Generate a small street-scene data set in an official layout, to try everything without download.

Roads, sidewalks, houses, trees, poles, signs, lights, people, cars and buses are placed in a world
in metres and seen through a camera, so objects of one kind appear large and small. The same seed
gives the same files.

    python tools/make_toy_data.py --out toy                        Cityscapes: leftImg8bit, gtFine
    python tools/make_toy_data.py --out toy_kitti --layout kitti   KITTI road, calibration included
    python tools/make_toy_data.py --out toy_voc --layout voc       PASCAL VOC2012
    python tools/make_toy_data.py --out streets --layout coco      photos, annotations.json

As in the official data, the test split has no annotation (Cityscapes: an empty one).
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse

from configs.errors import ConfigError
from tools.shared.options import parse_hw
from tools.toy.folder import make
from tools.toy.layouts import WRITERS, split_sizes

ROOTS = {
    "cityscapes": "",
    "kitti": "data_road",
    "voc": "VOCdevkit/VOC2012",
    "coco": "",
}  # data roots in it
SIZES = {"cityscapes": "128,256", "kitti": "188,621", "voc": "188,250", "coco": "288,512"}
SMALLEST = 32  # pixels a side


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the data set")
    parser.add_argument("--layout", choices=WRITERS, default="cityscapes")
    parser.add_argument("--frames", type=int, default=60, help="training frames (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", metavar="H,W", help="in pixels; kitti and voc: of the largest frames "
        f"(default {', '.join(f'{layout} {size}' for layout, size in SIZES.items())})"
    )  # fmt: skip
    options = parser.parse_args(argv)
    hw = parse_hw("--size", options.size or SIZES[options.layout])
    if min(hw) < SMALLEST:
        raise ConfigError(f"--size {options.size}: expected HEIGHT,WIDTH, each at least {SMALLEST}")
    if options.frames < 1 or options.seed < 0:
        raise ConfigError("--frames must be at least 1 and --seed at least 0")
    settings = {
        "layout": options.layout, "frames": options.frames, "seed": options.seed, "hw": list(hw)
    }  # fmt: skip
    if make(options.out, settings):
        sizes = split_sizes(options.layout, options.frames)
        counts = ", ".join(f"{count} {split}" for split, count in sizes.items())
        root = options.out / ROOTS[options.layout]
        print(f"{root}: {counts} frames in the {options.layout} layout")
    else:
        print(f"{options.out}: already there, made with the same settings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
