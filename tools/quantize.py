r"""Make a faster run folder: 8-bit integers (int8) or 16-bit floats (bf16), for the CPU.

  python tools/quantize.py --model RUN_DIR --out RUN_INT8 --images FOLDER
  python tools/quantize.py --model RUN_DIR --out RUN_INT8 --data-root CAMVID
  python tools/quantize.py --model RUN_DIR --out RUN_BF16 --precision bf16

int8 measures the range of every layer's output on real images (calibration): those of --images, or
of the training split of --data-root. With --data-root the mIoU on its validation split is measured
before and after; groups of layers then stay in float, the head first, until the loss is at most
--max-loss. bf16 is refused if it loses more. It needs a processor with AVX-512, here and where the
folder is used. predict.py and export_submission.py use the new folder like any other.

An int8 folder also has inference-int8.onnx, the same network for ONNX Runtime, OpenVINO and
TensorRT (QuantizeLinear and DequantizeLinear around 8-bit layers); predict.py --backend openvino
computes with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse
import importlib.util
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from rich.progress import track

from configs.errors import ConfigError
from data_iter.datasets import find_samples
from data_iter.frames import Frames
from data_iter.image_files import read_image
from tools.inference.backends import OnnxruntimeSegmenter
from tools.inference.files import list_images
from tools.inference.precision import require_bf16
from tools.inference.qdq import export_int8
from tools.inference.quantization import (
    folded,
    segmenter_of,
    to_bf16,
    to_int8,
    write_inference_run,
)
from tools.inference.run import RunParts, read_run
from tools.shared.options import add_model, read_epoch
from train.data import open_split
from train.errors import RunError
from train.memory import check_free, quantizing_bytes
from train.metrics import iou, mean_score
from train.run_dir import RunDir
from train.segmenter import PixelSegmenter
from train.validation import score_frame

CALIBRATION_IMAGES = 10
# Layers that may stay in float, by the names of their convolutions; tried in this order, each with
# those before it. The head's scores decide directly, the stem sees the widest range of values.
FLOAT_GROUPS = (r"fc1_", r"conv1_", r"conv5_")


def mean_iou(segmenter: PixelSegmenter, run: RunParts, frames: Frames) -> float:
    """Score whole images at their own size, 0..1."""
    numbers = track(range(len(frames)), "scoring", transient=True)
    scored = (score_frame(segmenter, frames, number, run.dataset) for number in numbers)
    return mean_score(iou(sum(frame.confusion for frame in scored)))


def calibration(args: argparse.Namespace, run: RunParts) -> list[np.ndarray]:
    """Read the images for calibration, spread evenly over all images."""
    if args.images:
        files = list_images(args.images, args.out)[0]
    elif args.data_root:
        split = run.config.data.train_split
        dataset = run.dataset
        samples = find_samples(dataset.layout, args.data_root, split, dataset.home, labelled=False)
        files = [sample.image for sample in samples]
    else:
        raise ConfigError("int8 needs --images or --data-root, to learn the range of each layer")
    step = max(1, len(files) // CALIBRATION_IMAGES)
    return [read_image(file) for file in files[::step][:CALIBRATION_IMAGES]]


def check_calibration(run: RunParts, images: list[np.ndarray]) -> None:
    """Raise ``RunError`` where calibration on images of the first one's size takes too much."""
    height, width = images[0].shape[:2]
    side = run.config.network.downsample
    padded = (-(-height // side) * side, -(-width // side) * side)
    need = quantizing_bytes(run.symbol, padded)
    what, advice = f"calibration on images of {width}x{height}", "calibrate on smaller ones"
    check_free(what, need, [mx.cpu()], lambda free: advice)


def best_int8(
    run: RunParts, images: list[np.ndarray], frames: Frames | None, max_loss: float
) -> tuple[RunParts, tuple[str, ...]]:
    """Quantise as much as the allowed loss of mIoU permits; print each try.

    Also returns the groups of layers that stayed in float.
    """
    if frames is None:
        return to_int8(run, images, ()), ()
    before = mean_iou(segmenter_of(run), run, frames)
    print(f"mIoU before {100 * before:.2f} %")
    for count in range(len(FLOAT_GROUPS) + 1):
        quantised = to_int8(run, images, FLOAT_GROUPS[:count])
        after = mean_iou(segmenter_of(quantised), run, frames)
        kept = ", ".join(FLOAT_GROUPS[:count]) or "none"
        print(f"mIoU after {100 * after:.2f} %, layers in float: {kept}")
        if 100 * (before - after) <= max_loss:
            return quantised, FLOAT_GROUPS[:count]
    raise RunError(f"{run.path}: int8 loses more than {max_loss} points of mIoU; try bf16")


@contextmanager
def onnx_int8(
    original: RunParts, images: list[np.ndarray], in_float: Iterable[str], frames: Frames | None
) -> Iterator[Path | None]:
    """Yield the same network as a temporary ONNX file; None without ONNX Runtime."""
    if not importlib.util.find_spec("onnxruntime"):
        print("no ONNX file: that needs ONNX Runtime, pip install -e '.[onnxruntime]'")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        export_int8(original, file, images, in_float)
        if frames is not None:
            segmenter = OnnxruntimeSegmenter(file, original.config.network)
            after = mean_iou(segmenter, original, frames)
            print(f"mIoU after {100 * after:.2f} % as an ONNX file, in ONNX Runtime")
        yield file


def checked_bf16(run: RunParts, frames: Frames | None, max_loss: float) -> RunParts:
    """Convert to bf16 and, with ``frames``, check the loss of mIoU against the allowed one."""
    made = to_bf16(run)
    if frames is not None:
        before, after = (mean_iou(segmenter_of(one), run, frames) for one in (run, made))
        print(f"mIoU before {100 * before:.2f} %\nmIoU after {100 * after:.2f} %")
        if not 100 * (before - after) <= max_loss:
            raise RunError(f"{run.path}: bf16 loses more than {max_loss} points of mIoU")
    return made


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN_DIR")
    parser.add_argument("--precision", choices=("int8", "bf16"), default="int8")
    parser.add_argument("--images", type=Path, help="folder of images for calibration")
    parser.add_argument("--data-root", type=Path, help="data set to calibrate and score on")
    parser.add_argument("--ignore-memory", action="store_true", help="even if memory is too small")
    parser.add_argument("--max-loss", type=float, default=0.5, help="points of mIoU (default 0.5)")
    args = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.WARNING)  # MXNet reports every layer

    if args.out.exists():
        raise RunError(f"{args.out}: exists already; name another --out")
    if args.precision == "bf16":
        require_bf16()
    epoch = RunDir(args.model).chosen_epoch(read_epoch(args.epoch))
    original = read_run(args.model, epoch)
    run = folded(original)
    split = run.config.data.val_split
    if args.data_root and not split:
        raise ConfigError(
            f"--data-root: {args.model} has no validation split (data.val_split is empty); "
            "calibrate with --images"
        )
    frames = open_split(run.dataset, args.data_root, split) if args.data_root else None
    if args.precision == "int8":
        images = calibration(args, run)
        if not args.ignore_memory:
            check_calibration(run, images)
        made, in_float = best_int8(run, images, frames, args.max_loss)
        with onnx_int8(original, images, in_float, frames) as file:
            write_inference_run(args.out, made, epoch, file)
    else:
        write_inference_run(args.out, checked_bf16(run, frames, args.max_loss), epoch)
    print(f"{args.out}: a run folder in {args.precision}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
