"""Generate a small street-scene data set in an official layout, to try all without a download.

Roads, sidewalks, houses, trees, poles, signs, lights, people, cars and buses are placed in a world
in metres and seen through a camera, so the same things come large and small. The same seed gives
the same files.

    python tools/make_toy_data.py --out toy                        Cityscapes: leftImg8bit, gtFine
    python tools/make_toy_data.py --out toy_kitti --layout kitti   KITTI road, calibration included
    python tools/make_toy_data.py --out toy_voc --layout voc       PASCAL VOC2012

As officially, the test split has no annotation (Cityscapes: an empty one).
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
import json
import re
import tempfile

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from configs.errors import ConfigError
from data_iter.errors import DataError
from tools.toy.layouts import LAYOUTS, split_sizes

MARKER = "toy_data.json"  # the settings that a folder was made with
ROOTS = {"cityscapes": "", "kitti": "data_road", "voc": "VOCdevkit/VOC2012"}  # data roots in it
SIZES = {"cityscapes": "128x256", "kitti": "188x621", "voc": "188x250"}


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the data set")
    parser.add_argument("--layout", choices=LAYOUTS, default="cityscapes")
    parser.add_argument("--frames", type=int, default=60, help="training frames (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", help="HEIGHTxWIDTH in pixels; kitti and voc: of the largest frames "
        f"(default {', '.join(f'{layout} {size}' for layout, size in SIZES.items())})"
    )  # fmt: skip
    options = parser.parse_args(argv)
    size = re.fullmatch(r"(\d+)x(\d+)", options.size or SIZES[options.layout])
    if not size or min(int(side) for side in size.groups()) < 32:
        raise ConfigError(f"--size {options.size}: expected HEIGHTxWIDTH, each at least 32")
    if options.frames < 1 or options.seed < 0:
        raise ConfigError("--frames must be at least 1 and --seed at least 0")
    hw = (int(size[1]), int(size[2]))
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


def make(out: Path, settings: dict) -> bool:
    """Write the data set of ``settings`` to ``out`` in one step; False if it is there already.

    Raises
    ------
    DataError
        Where ``out`` is not a folder, or holds anything else, which is then left as it is.
    """
    marker = out / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == json.dumps(settings):
        return False
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give another --out")
    if out.is_dir() and any(out.iterdir()):
        held = "toy data made with other settings" if marker.is_file() else "something else"
        raise DataError(f"{out}: holds {held}; remove it or give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        whole = Path(temporary) / "whole"
        files = LAYOUTS[settings["layout"]](
            settings["frames"], settings["seed"], tuple(settings["hw"])
        )
        total = sum(split_sizes(settings["layout"], settings["frames"]).values())
        console = Console(stderr=True)
        quiet = not console.is_terminal
        progress = track(files, "Drawing", total, console=console, transient=True, disable=quiet)
        for frame_files in progress:
            for name, content in frame_files.items():
                write(whole / name, content)
        (whole / MARKER).write_text(json.dumps(settings), encoding="utf-8")
        whole.rename(out)
    return True


def write(path: Path, content: str | np.ndarray | Image.Image) -> None:
    """Write a text, an array as the image format that ``path`` names, or a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        with path.open("a", encoding="utf-8") as file:  # lists grow by a line a frame
            file.write(content)
    elif isinstance(content, Image.Image):
        content.save(path)
    else:
        bgr = content[..., ::-1] if content.ndim == 3 else content
        # In memory: libpng would print lines of its own when the disk is full.
        encoded = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        path.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    sys.exit(main())
