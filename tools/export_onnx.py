r"""Export a run folder to ONNX.

  python tools/export_onnx.py --model RUN_DIR --out model.onnx
  python tools/export_onnx.py --model RUN_DIR --out model.onnx --pixels --hw 1024,2048 --batch 1

The input 'data' is (N, 3, H, W) float32, RGB minus the mean that stands in the file's metadata; H
and W are multiples of 8, free unless --hw fixes them, as is N unless --batch does. The output
'seg_loss' is (N, classes, cells), softmax over the classes, in the network's own order, as in the
ONNX model zoo's ResNet101-DUC; with --pixels the output 'probabilities' is (N, classes, H, W).

Batch normalisation is folded into the convolutions. Before the file gets its name, onnx.checker
reads it, and ONNX Runtime must agree with MXNet to 1e-4 on --images.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse
import tempfile

import cv2
import mxnet as mx
import numpy as np
import onnx
from onnx import helper

from configs.errors import ConfigError
from configs.schema import parse
from data_iter.image_files import read_image
from tools.inference.run import EMBEDDED, RunParts, find_images, read_run, require
from train.errors import RunError
from train.atomic import atomic_write
from train.folding import fold_batch_norm, inference_graph
from train.segmenter import Segmenter

TOLERANCE = 1e-4  # of a probability, ONNX Runtime against MXNet
COMPARED = 3  # images


def export(
    run: RunParts,
    file: Path,
    batch: int | None = None,
    hw: tuple[int, int] | None = None,
    pixels: bool = False,
) -> None:
    """Write the network of a run as an ONNX file (opset 13); see this module's docstring.

    Raises
    ------
    ConfigError
        ``hw`` is no multiple of the downsampling rate.
    RunError
        The run is a quantised one, whose operators ONNX does not have.
    """
    network = run.config.network
    side = network.downsample
    if hw and any(length % side or length < 1 for length in hw):
        raise ConfigError(f"--hw {hw[0]},{hw[1]}: expected multiples of {side}")
    if run.ready:
        raise RunError(f"{run.path}: int8 and bf16 folders run in MXNet only; export the original")
    graph, params = fold_batch_norm(inference_graph(run.symbol), run.arg_params, run.aux_params)
    scores = graph.get_children()[0].get_children()[0]  # below softmax and reshape: (N, C, h, w)
    shape = (batch or 1, 3, *(hw or (8 * side, 8 * side)))
    free = (batch or "batch", 3, *(hw or ("height", "width")))
    used = {name: params[name] for name in scores.list_arguments() if name != "data"}
    with tempfile.TemporaryDirectory() as folder:
        body = str(Path(folder) / "body.onnx")
        mx.onnx.export_model(
            scores, used, [shape], np.float32, body, dynamic=True, dynamic_input_shapes=[free]
        )
        model = onnx.load(body)
    inputs = [i for i in model.graph.input if i.name == "data"]
    del model.graph.input[:]  # MXNet lists every parameter too, which forbids optimising them
    model.graph.input.extend(inputs)
    _add_tail(model, run, free, pixels)
    mean = ",".join(map(str, network.mean_rgb))
    names = ",".join(row.name for row in run.dataset.train_classes)
    helper.set_model_props(model, {"mean_rgb": mean, "classes": names, "cell": str(network.cell)})
    onnx.save(model, str(file))


def _add_tail(model: onnx.ModelProto, run: RunParts, free: tuple, pixels: bool) -> None:
    """Turn scores (N, L * block * block, h, w) into the file's output."""
    graph, classes = model.graph, run.dataset.num_classes
    cell, block = run.config.network.cell_layout
    name = graph.output[0].name
    if pixels:
        if block > 1:  # CRD: class outermost, then row and column of the block, as DUC has it
            graph.node.append(
                helper.make_node(
                    "DepthToSpace", [name], ["cell_scores"], "cells", blocksize=block, mode="CRD"
                )
            )
            name = "cell_scores"
        last = "cell_probabilities" if cell > 1 else "probabilities"
        graph.node.append(helper.make_node("Softmax", [name], [last], "softmax", axis=1))
        if cell > 1:  # position p / cell, ends repeated, as train.segmenter.upsample
            factors = np.array([1, 1, cell, cell], np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(factors, "cell_factors"))
            graph.node.append(
                helper.make_node(
                    "Resize",
                    [last, "", "cell_factors"],
                    ["probabilities"],
                    "pixels",
                    mode="linear",
                    coordinate_transformation_mode="asymmetric",
                )
            )
        output = ("probabilities", (free[0], classes, *free[2:]))
    else:
        shape = np.array([0, classes, -1], np.int64)
        graph.initializer.append(onnx.numpy_helper.from_array(shape, "cells_shape"))
        graph.node.append(helper.make_node("Reshape", [name, "cells_shape"], ["scores"], "scores"))
        graph.node.append(helper.make_node("Softmax", ["scores"], ["seg_loss"], "softmax", axis=1))
        output = ("seg_loss", (free[0], classes, "cells"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output[0], onnx.TensorProto.FLOAT, output[1]))


def difference(
    file: Path, run: RunParts, images: list[np.ndarray], batch: int | None, hw: tuple | None
) -> float:
    """Return the largest difference of a probability between ONNX Runtime and MXNet.

    ``images`` are (H, W, 3) uint8 RGB; each is resized to ``hw``, or cut to multiples of 8 (and
    resized to 8 where it is smaller).
    """
    session = require("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    segmenter = Segmenter(run.symbol, run.arg_params, run.aux_params, run.config.network, mx.cpu())
    pixels = session.get_outputs()[0].name == "probabilities"
    largest = 0.0
    for image in images:
        side = run.config.network.downsample
        height, width = hw or (max(side, length // side * side) for length in image.shape[:2])
        if hw or height > image.shape[0] or width > image.shape[1]:
            image = cv2.resize(image, (width, height))
        image = image[:height, :width]
        data = segmenter.network_input(image)
        found = session.run(None, {"data": np.repeat(data, batch or 1, axis=0)})[0]
        expected = segmenter.probabilities(image) if pixels else segmenter.forward(data)
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def smooth_noise() -> np.ndarray:
    """Return a picture with structure, (136, 248, 3) uint8, for a first comparison."""
    random = np.random.default_rng(0)
    return cv2.resize(random.integers(0, 256, (17, 31, 3)).astype(np.uint8), (248, 136))


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="default: models/camvid")
    parser.add_argument("--epoch", type=int, help="of the parameters (default: the newest)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--batch", type=int, help="fix the batch size")
    parser.add_argument("--hw", help="fix height,width")
    parser.add_argument("--pixels", action="store_true", help="output (N, classes, H, W)")
    parser.add_argument("--images", type=Path, help="compare on these (default: on noise)")
    args = parser.parse_args(argv)

    try:
        hw = parse("tuple[int, ...]", args.hw) if args.hw else None
    except ValueError:
        hw = ()
    if hw is not None and len(hw) != 2:
        raise ConfigError(f"--hw {args.hw}: expected height,width")
    if args.batch is not None and args.batch < 1:
        raise ConfigError(f"--batch {args.batch}: expected at least 1")
    require("onnxruntime")
    images = [smooth_noise()]
    if args.images:
        images = [read_image(path) for path in find_images(args.images, args.out)[:COMPARED]]
    run = read_run(args.model, args.epoch)
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
