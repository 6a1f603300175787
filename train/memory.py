"""How much memory training and prediction take, told before they take it.

On CPUs MXNet 1.9.1 keeps every layer's output and its gradient when it trains through oneDNN; its
own memory plan counts a third of that. On GPUs the plan is taken as it is, which was never
measured. The constants were fitted to the peaks of five trainings (docs/measurements.md); the
largest error was 7%.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import mxnet as mx
import psutil

from configs.datasets import DatasetSpec
from configs.schema import Config

from .errors import RunError
from .folding import inference_graph
from .machine import cgroup_folders
from .network import build_symbol, param_shapes

FLOAT = 4  # bytes
PROCESS = 250e6  # Python, MXNet, OpenCV and what oneDNN compiles
# Copies of the parameters while training: weights, gradients, momentum, the module's own; on a CPU
# oneDNN's rearranged ones for forward, gradients of data and gradients of weights.
COPIES = 4
REARRANGED = 3
CUDNN = 1e9  # workspaces and context of a GPU; not measured
CROP_STEP = 32  # pixels, when a crop that fits is looked for


def training_bytes(
    symbol: mx.sym.Symbol, crop_hw: Sequence[int], crops: int, device: str = "cpu", devices: int = 1
) -> int:
    """Estimate the peak of a training: of the process on CPUs, of each device on GPUs.

    Parameters
    ----------
    symbol : Symbol
        The graph that is trained.
    crop_hw : sequence of int
        Height and width of the crops, multiples of the downsampling rate.
    crops : int
        That go through the network at once on each device.
    device : {"cpu", "gpu"}
        Kind of the devices.
    devices : int
        How many CPU contexts share the process.
    """
    shape = (crops, 3, *crop_hw)
    weights = FLOAT * sum(map(math.prod, param_shapes(symbol, 8)[0].values()))
    if device == "gpu":
        return int(COPIES * weights + planned_bytes(symbol, shape, "write") + CUDNN)
    outputs = FLOAT * sum(output_sizes(symbol, shape))
    return int(PROCESS + devices * ((COPIES + REARRANGED) * weights + 2 * outputs))


def output_sizes(symbol: mx.sym.Symbol, data_shape: Sequence[int]) -> list[int]:
    """Count the values of each layer's output for a batch of ``data_shape`` (N, 3, H, W)."""
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(data=tuple(data_shape))
    inputs = set(symbol.list_inputs())
    names = internals.list_outputs()
    return [math.prod(shape) for name, shape in zip(names, shapes) if name not in inputs]


def planned_bytes(symbol: mx.sym.Symbol, data_shape: Sequence[int], grad_req: str) -> int:
    """Return what MXNet's memory planner reserves for everything but the parameters."""
    executor = symbol.simple_bind(mx.cpu(), grad_req=grad_req, data=tuple(data_shape))
    return int(re.findall(r"Total (\d+) MB allocated", executor.debug_str())[-1]) * 2**20


def predicting_bytes(symbol: mx.sym.Symbol, hw: Sequence[int], classes: int) -> int:
    """Estimate what a prediction of an image takes beside the process and the parameters.

    Layers' outputs are freed after their last use: the most that is alive at once counts twice,
    for oneDNN's rearranged copies. To them come the probabilities of each class.

    Parameters
    ----------
    symbol : Symbol
        A graph of inference (:mod:`train.folding`), without parameters that prediction lacks.
    hw : sequence of int
        Height and width as the network sees them.
    classes : int
        Number of classes L.
    """
    nodes = json.loads(symbol.tojson())["nodes"]
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, *hw))
    sizes = {name: math.prod(shape) for name, shape in zip(internals.list_outputs(), shapes)}
    last = {source: index for index, node in enumerate(nodes) for source, *_ in node["inputs"]}
    alive = most = 0
    size = [
        sizes["data" if node["name"] == "data" else f"{node['name']}_output"]
        if node["op"] != "null" or node["name"] == "data"
        else 0
        for node in nodes
    ]
    for index, node in enumerate(nodes):
        alive += size[index]
        most = max(most, alive)
        read = {source for source, *_ in node["inputs"]}
        alive -= sum(size[source] for source in read if last[source] == index)
    return FLOAT * (2 * most + (classes + 6) * math.prod(hw))


def free_bytes(
    context: mx.Context,
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int:
    """Return what a GPU, or this machine within this process's cgroup limits, has free."""
    if context.device_type == "gpu":
        return mx.context.gpu_memory_info(context.device_id)[0]
    free = psutil.virtual_memory().available
    for folder in cgroup_folders("memory", cgroup_root, membership):
        left = _cgroup_left(folder)
        free = free if left is None else min(free, left)
    return free


def _cgroup_left(folder: Path) -> int | None:
    """Return what a memory cgroup of version 2 or 1 has left, None for no limit."""
    version_2 = (folder / "memory.max").exists()
    limit, used = (
        ("memory.max", "memory.current")
        if version_2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    try:
        text = (folder / limit).read_text().strip()
        statistics = (folder / "memory.stat").read_text()
        taken = int((folder / used).read_text())
    except OSError:
        return None
    if text == "max":
        return None
    # The kernel gives cached files up where memory is short.
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics, re.MULTILINE)
    return int(text) - taken + (int(cached[1]) if cached else 0)


def check_training(
    config: Config,
    dataset: DatasetSpec,
    contexts: list[mx.Context],
    frame_hw: tuple[int, int] | None,
    ignore: bool = False,
) -> int:
    """Return the bytes that a training takes, its validation on whole frames with it.

    Parameters
    ----------
    config, dataset, contexts
        As for :func:`train.trainer.train`.
    frame_hw : tuple of int or None
        Size of a frame of the validation; None: there is none.
    ignore : bool
        Take what there is.

    Raises
    ------
    RunError
        More than is free; the sentence says what would fit.
    """
    symbol = build_symbol(config, dataset, training=True)
    kind, devices = contexts[0].device_type, len(contexts)
    at_once = config.solver.batch_size // devices // config.solver.accumulate
    validation = 0
    if frame_hw:
        side = config.network.downsample
        hw = [-(-length // side) * side for length in frame_hw]
        predicting = inference_graph(build_symbol(config, dataset))
        validation = predicting_bytes(predicting, hw, dataset.num_classes)

    def needed(crops: int, crop_hw: Sequence[int]) -> int:
        taken = training_bytes(symbol, crop_hw, crops, kind, devices) + validation
        if kind == "gpu":
            return taken
        crop = 4 * FLOAT * math.prod(crop_hw)
        waiting = (config.data.queue + 1) * config.solver.batch_size * crop
        return taken + waiting + config.data.cache_mb * 2**20

    need, free = needed(at_once, config.data.crop_hw), min(map(free_bytes, contexts))
    if need > free and not ignore:
        where = "the machine" if kind == "cpu" else f"GPU {contexts[0].device_id}"
        raise RunError(
            f"training needs about {need / 1e9:.1f} GB, and {where} has {free / 1e9:.1f} GB free; "
            f"{_what_fits(config, needed, at_once, free)}; --ignore-memory tries all the same"
        )
    return need


def _what_fits(
    config: Config, needed: Callable[[int, Sequence[int]], int], at_once: int, free: int
) -> str:
    """Say how the batch has to be cut; and where that is not enough, how large a crop may be."""
    crop_hw, before = config.data.crop_hw, config.solver.accumulate
    for crops in range(at_once - 1, 0, -1):
        if at_once % crops == 0 and needed(crops, crop_hw) <= free:
            parts = before * at_once // crops
            return f"the same batch fits in parts: --set solver.accumulate={parts}"
    parts = f" --set solver.accumulate={before * at_once}" if at_once > 1 else ""
    for percent in range(95, 10, -5):
        height, width = (side * percent // 100 // CROP_STEP * CROP_STEP for side in crop_hw)
        if min(height, width) and needed(1, (height, width)) <= free:
            return f"smaller crops fit: --set data.crop_hw={height},{width}{parts}"
    return "no size of crop fits: free memory, or take a smaller network.width or depth"
