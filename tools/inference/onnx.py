"""Write a run's network as an ONNX file, and compare ONNX Runtime with MXNet on it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from configs.errors import ConfigError
from configs.loader import dump
from configs.schema import Network
from data_iter.image_files import check_regular
from tools.inference.run import Description, RunParts
from train.errors import RunError
from train.folding import fold_batch_norm, inference_graph
from train.network import cell_layout, decoder_of
from train.run_dir import RunDir
from train.segmenter import Segmenter

# Keys of the metadata: the run folder's files of these names, and the training images' size.
CONFIG, CLASSES, LONG_SIDE = "config.cfg", "dataset.yaml", "long_side"


def export(
    run: RunParts,
    file: Path,
    batch: int | None = None,
    hw: tuple[int, int] | None = None,
    pixels: bool = False,
) -> None:
    """Write the network of a run as an ONNX file (opset 13); see ``tools/export_onnx.py``.

    Raises
    ------
    ConfigError
        ``hw`` is no multiple of the downsampling rate.
    RunError
        The run is a quantised one, whose operators ONNX does not have.
    """
    network = run.config.network
    side = network.downsample
    if hw and any(length % side for length in hw):
        raise ConfigError(f"--hw {hw[0]},{hw[1]}: expected multiples of {side}")
    if run.ready:
        raise RunError(f"{run.path}: int8 and bf16 folders run in MXNet only; export the original")
    graph, params = fold_batch_norm(inference_graph(run.symbol), run.arg_params, run.aux_params)
    scores = graph.get_children()[0].get_children()[0]  # below softmax and reshape: (N, C, h, w)
    shape = (batch or 1, 3, *(hw or (8 * side, 8 * side)))
    free = (batch or "batch", 3, *(hw or ("height", "width")))
    model = _convert(scores, params, shape, free)
    _add_tail(model, run, free, pixels)
    mean = ",".join(map(str, network.mean_rgb))
    names = ",".join(row.name for row in run.dataset.train_classes)
    facts = {"mean_rgb": mean, "classes": names, "cell": str(network.cell)}
    whole = {CONFIG: dump(run.config), CLASSES: run.dataset.dump()}
    if run.long_side:
        whole[LONG_SIDE] = str(run.long_side)
    helper.set_model_props(model, {**facts, **whole})
    onnx.save(model, str(file))


def _convert(
    scores: mx.sym.Symbol, params: Mapping[str, mx.nd.NDArray], shape: tuple, free: tuple
) -> onnx.ModelProto:
    """Let MXNet convert the graph with inputs only, then add the parameters.

    MXNet would turn each parameter into a Python list, eight times as large.
    """
    shapes = {
        name: shape if name == "data" else params[name].shape for name in scores.list_inputs()
    }
    dynamic = [free if name == "data" else known for name, known in shapes.items()]
    with tempfile.TemporaryDirectory() as folder:
        body = str(Path(folder) / "body.onnx")
        mx.onnx.export_model(
            scores, {}, list(shapes.values()), np.float32, body, dynamic=True,
            dynamic_input_shapes=dynamic,
        )  # fmt: skip
        model = onnx.load(body)
    inputs = [i for i in model.graph.input if i.name == "data"]
    del model.graph.input[:]  # a parameter that is an input is not optimised
    model.graph.input.extend(inputs)
    for name in shapes:
        if name == "data":
            continue
        model.graph.initializer.append(numpy_helper.from_array(params[name].asnumpy(), name))
    return model


def read_description(file: Path) -> Description:
    """Read configuration and class table from the metadata of a file that :func:`export` wrote.

    Raises
    ------
    RunError
        It is not an ONNX file, another program wrote it, or it was made with ``--pixels``, ``--hw``
        or ``--batch``, which prediction cannot use.
    """
    check_regular(file)
    try:
        model = onnx.load(str(file), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read as ONNX ({error})") from None
    props = {prop.key: prop.value for prop in model.metadata_props}
    if CONFIG not in props or CLASSES not in props:
        raise RunError(f"{file}: its metadata has no {CONFIG}; expected a file of export_onnx.py")
    shape = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else ()
    fixed = [size.dim_value for size in shape][:1] + [size.dim_value for size in shape][2:]
    if [output.name for output in model.graph.output] != ["seg_loss"] or any(fixed):
        raise RunError(f"{file}: export it without --pixels, --hw and --batch to predict with it")
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, CLASSES):
            (Path(folder) / name).write_text(props[name], encoding="utf-8")
        try:
            config, dataset = RunDir(folder).load()
        except ConfigError as error:
            raise RunError(f"{file}: metadata: {str(error).replace(folder, '')}") from None
    long_side = props.get(LONG_SIDE, "")
    return Description(config, dataset, int(long_side) if long_side.isdecimal() else None)


def _add_tail(model: onnx.ModelProto, run: RunParts, free: tuple, pixels: bool) -> None:
    """Turn scores (N, L * block * block, h, w) into the file's output."""
    graph, classes = model.graph, run.dataset.num_classes
    if pixels:
        _add_pixels(graph, run.config.network)
        output = ("probabilities", (free[0], classes, *free[2:]))
    else:
        name, shape = graph.output[0].name, np.array([0, classes, -1], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, "cells_shape"))
        graph.node.append(helper.make_node("Reshape", [name, "cells_shape"], ["scores"], "scores"))
        graph.node.append(helper.make_node("Softmax", ["scores"], ["seg_loss"], "softmax", axis=1))
        output = ("seg_loss", (free[0], classes, "cells"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output[0], onnx.TensorProto.FLOAT, output[1]))


def _add_pixels(graph: onnx.GraphProto, network: Network) -> None:
    """Turn the graph's scores into ``probabilities`` (N, L, H, W)."""
    (cell, block), name = cell_layout(network), graph.output[0].name
    if block > 1:  # CRD: class outermost, then row and column of the block, as DUC has it
        graph.node.append(
            helper.make_node(
                "DepthToSpace", [name], ["cell_scores"], "cells", blocksize=block, mode="CRD"
            )
        )
        name = "cell_scores"
    softmax = helper.make_node("Softmax", [name], ["probabilities"], "softmax", axis=1)
    if cell == 1:
        graph.node.append(softmax)
        return
    # Position p / cell, ends repeated, as train.segmenter.upsample.
    factors = np.array([1, 1, cell, cell], np.float32)
    graph.initializer.append(numpy_helper.from_array(factors, "cell_factors"))
    resize = helper.make_node(
        "Resize",
        [name, "", "cell_factors"],
        ["probabilities"],
        "pixels",
        mode="linear",
        coordinate_transformation_mode="asymmetric",
    )
    # DeepLab's baseline interpolates scores, DUC probabilities: PixelSegmenter.at_pixels.
    scores_first = decoder_of(network).interpolates_scores
    first, last = (resize, softmax) if scores_first else (softmax, resize)
    first.output[0] = last.input[0] = "pixel_scores" if scores_first else "cell_probabilities"
    graph.node.extend([first, last])


def difference(
    file: Path, run: RunParts, images: list[np.ndarray], batch: int | None, hw: tuple | None
) -> float:
    """Return the largest difference of a probability between ONNX Runtime and MXNet.

    ``images`` are (H, W, 3) uint8 RGB; each is resized to ``hw``, or cut to multiples of 8 (and
    resized to 8 where it is smaller).
    """
    import onnxruntime  # an extra, which the caller has found

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
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
