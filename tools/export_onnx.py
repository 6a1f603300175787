r"""Export a run folder to ONNX.

  python tools/export_onnx.py --model RUN_DIR --out model.onnx
  python tools/export_onnx.py --model RUN_DIR --out model.onnx --pixels --hw 1024,2048 --batch 1

The input 'data' is (N, 3, H, W) float32, RGB minus the mean in the file's metadata. H and W are
multiples of 8; --hw fixes them, and --batch fixes N. The output 'seg_loss' is (N, classes, cells),
softmax over the classes, in the network's own order, as in the ONNX model zoo's ResNet101-DUC. With
--pixels the output 'probabilities' is (N, classes, H, W).

Batch normalisation is folded into the convolutions. Before the file gets its name, onnx.checker
checks it, and ONNX Runtime must agree with MXNet to 1e-4 on --images.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse

import cv2
import numpy as np
import onnx

from data_iter.image_files import read_image
from tools.inference.backends import require
from tools.inference.files import list_images
from tools.inference.onnx import difference, export
from tools.inference.run import read_run
from tools.shared.options import add_model, at_least_one, parse_hw, read_epoch
from train.atomic import atomic_write, check_room
from train.errors import RunError
from train.params import array_bytes

TOLERANCE = 1e-4  # of a probability, ONNX Runtime against MXNet
COMPARED = 3  # images


def smooth_noise() -> np.ndarray:
    """Return a structured picture, (136, 248, 3) uint8, for a first comparison."""
    random = np.random.default_rng(0)
    return cv2.resize(random.integers(0, 256, (17, 31, 3)).astype(np.uint8), (248, 136))


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--batch", type=int, help="fix the batch size")
    parser.add_argument("--hw", metavar="H,W", help="fix height and width")
    parser.add_argument("--pixels", action="store_true", help="output (N, classes, H, W)")
    parser.add_argument("--images", type=Path, help="compare on these (default: on noise)")
    args = parser.parse_args(argv)

    hw = parse_hw("--hw", args.hw)
    at_least_one("--batch", args.batch)
    require("onnxruntime")
    images = [smooth_noise()]
    if args.images:
        images = [read_image(path) for path in list_images(args.images, args.out)[0][:COMPARED]]
    run = read_run(args.model, read_epoch(args.epoch))
    check_room(args.out, array_bytes(run.arg_params), "the network takes about")
    with atomic_write(args.out) as temporary:
        export(run, temporary, args.batch, hw, args.pixels)
        onnx.checker.check_model(str(temporary), full_check=True)
        largest = difference(temporary, run, images, args.batch, hw)
        if not largest <= TOLERANCE:
            raise RunError(f"{args.out}: ONNX Runtime differs from MXNet by {largest:.2g}")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, within {largest:.2g} of MXNet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
