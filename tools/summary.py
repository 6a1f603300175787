"""List a network's layers and their cost, to see before renting GPUs whether it fits.

    python tools/summary.py --config configs/duc_hdc.cfg
    python tools/summary.py --config configs/duc_hdc.cfg --hw 1024,2048     a whole Cityscapes frame
    python tools/summary.py --config configs/toy.cfg --symbol toy.json      graph for Netron

A row is a convolution, deconvolution or pooling with the layers after it (batch normalisation,
ReLU, sum). Multiply-adds are those of convolutions, for one image; memory is in 10^6 bytes of
float32. The planned memory is MXNet's own reservation for activations and their gradients, without
the workspace of cuDNN or oneDNN.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before MXNet loads

import argparse
import ast
import math
from dataclasses import dataclass

import mxnet as mx
from rich import box
from rich.console import Console
from rich.table import Table

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Config
from symbols.graph import graph_nodes
from tools.shared.options import parse_hw
from train.atomic import atomic_write
from train.memory import TrainingMemory, planned_bytes
from train.network import build_symbol

BYTES = 4  # of a float32
COPIES = 3  # training keeps weights, gradients and momentum
STARTS_ROW = ("Convolution", "Deconvolution", "Pooling")


@dataclass
class Layer:
    """One row: ``output`` is (C, H, W), ``activations`` counts the values of its outputs."""

    name: str
    output: tuple[int, ...]
    parameters: int = 0
    multiply_adds: int = 0
    activations: int = 0


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--hw", help="HEIGHT,WIDTH of the input (default: data.crop_hw)")
    parser.add_argument(
        "--frame", default="1024,2048", metavar="H,W", help="size of the frames that validate"
    )
    parser.add_argument("--symbol", type=Path, help="save the training graph as MXNet JSON here")
    options = parser.parse_args(argv)
    config = load_config(options.config, options.set)
    hw = parse_hw("--hw", options.hw) or config.data.crop_hw
    side = config.network.downsample
    if any(length % side for length in hw):
        raise ConfigError(f"--hw {options.hw}: expected HEIGHT,WIDTH, multiples of {side}")
    dataset = load_dataset(config.data.dataset)
    symbol = build_symbol(config, dataset)
    if options.symbol:
        with atomic_write(options.symbol) as temporary:
            temporary.write_text(symbol.tojson(), encoding="utf-8")
    data_shape = (1, 3, *hw)
    layers = summarise(symbol, data_shape)
    console = Console(markup=False)
    console.print(layers_table(layers, f"{options.config.stem}, input {hw[0]} x {hw[1]}"))
    for line in costs(config, dataset, layers, data_shape, options.frame):
        console.print(line, soft_wrap=True)
    if options.symbol:
        console.print(f"saved {options.symbol}")
    return 0


def costs(
    config: Config,
    dataset: DatasetSpec,
    layers: list[Layer],
    data_shape: tuple[int, int, int, int],
    frame: str,
) -> list[str]:
    """Say what a network takes in parameters, computation and memory."""
    symbol = build_symbol(config, dataset)
    parameters = sum(layer.parameters for layer in layers)
    kept = sum(layer.activations for layer in layers)
    training, predicting = (planned_bytes(symbol, data_shape, req) for req in ("write", "null"))
    batch, parts = config.solver.batch_size, config.solver.accumulate
    frame_hw = parse_hw("--frame", frame) if config.data.val_split else None
    memory = TrainingMemory(config, dataset, frame_hw=frame_hw)
    total = f"training on one CPU needs about {memory.total(crop_hw=data_shape[2:]) / 1e9:.1f} GB"
    if parts > 1:
        total += f" in {parts} parts"
    if frame_hw:
        total += f", {memory.validation / 1e9:.1f} GB of them to validate frames of {frame}"
    return [
        f"parameters: {parameters / 1e6:.1f} M, {mega(parameters * BYTES)} MB; "
        f"with gradients and momentum {mega(COPIES * parameters * BYTES)} MB on every device",
        f"multiply-adds: {sum(layer.multiply_adds for layer in layers) / 1e9:.1f} G an image",
        f"activations: {mega(kept * BYTES)} MB an image if all were kept; MXNet plans "
        f"{mega(training)} MB to train, {mega(predicting)} MB to predict",
        f"a batch of {batch}: {mega(batch * training)} MB over all devices",
        total,
    ]


def summarise(symbol: mx.sym.Symbol, data_shape: tuple[int, int, int, int]) -> list[Layer]:
    """List the layers of the graph in order, for a batch of ``data_shape`` (N, 3, H, W)."""
    internals = symbol.get_internals()
    _, output_shapes, _ = internals.infer_shape(data=data_shape)
    shapes = dict(zip(internals.list_outputs(), output_shapes))
    trained = set(symbol.list_arguments()) - {"data", "seg_loss_label"}
    layers: list[Layer] = []
    nodes = graph_nodes(symbol)
    for node in nodes:
        name = node["name"]
        if node["op"] == "null":
            continue
        output = shapes[f"{name}_output"]
        inputs = [nodes[index]["name"] for index, *_ in node["inputs"]]
        if node["op"] in STARTS_ROW:
            layers.append(Layer(name, output[1:]))
        row = layers[-1]
        row.activations += math.prod(output)
        row.parameters += sum(math.prod(shapes[i]) for i in inputs if i in trained)
        if node["op"] in ("Convolution", "Deconvolution"):
            source = shapes.get(f"{inputs[0]}_output", shapes.get(inputs[0]))
            row.multiply_adds += multiply_adds(node, source, output)
    return layers


def multiply_adds(node: dict, source: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Multiplications of a convolution (per output value) or deconvolution (per input value)."""
    taps = math.prod(ast.literal_eval(node["attrs"]["kernel"]))
    if node["op"] == "Deconvolution":
        return math.prod(source) * output[1] * taps
    return math.prod(output) * source[1] * taps


def layers_table(layers: list[Layer], title: str) -> Table:
    """A table of every layer, with lines between stages and totals at the end."""
    table = Table(title=title, show_footer=True, box=box.SIMPLE)
    table.add_column("layer", "total", no_wrap=True)
    table.add_column("C x H x W", justify="right", no_wrap=True)
    for heading, total in (
        ("parameters", f"{sum(layer.parameters for layer in layers):,}"),
        ("M mult-adds", f"{sum(layer.multiply_adds for layer in layers) / 1e6:,.0f}"),
        ("MB kept", mega(BYTES * sum(layer.activations for layer in layers))),
    ):
        table.add_column(heading, total, justify="right")
    for index, layer in enumerate(layers):
        if index and stage(layer) != stage(layers[index - 1]):
            table.add_section()
        table.add_row(
            layer.name,
            "x".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds / 1e6:,.1f}",
            mega(layer.activations * BYTES),
        )
    return table


def stage(layer: Layer) -> str:
    """``conv4`` of ``conv4_23_3x3``."""
    return layer.name.partition("_")[0]


def mega(count: int) -> str:
    """Bytes in 10^6; small numbers get a decimal."""
    return f"{count / 1e6:,.1f}" if count < 1e8 else f"{count / 1e6:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
