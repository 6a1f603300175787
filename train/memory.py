"""Estimate the memory of training and prediction before they begin.

On CPUs MXNet 1.9.1 keeps every layer's output and its gradient when it trains through oneDNN; its
own memory plan covers about a third of that. On GPUs the estimate is the plan, which was never
measured. The constants were fitted to measured peaks, which docs/measurements.md lists and
``tools/benchmark.py memory`` repeats. The largest error was 11% for training, 8% for prediction.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import mxnet as mx
import psutil

from configs.datasets import DatasetSpec
from configs.schema import Config
from symbols.graph import graph_nodes

from .errors import RunError
from .folding import inference_graph
from .machine import cgroup_folders, peak_memory
from .network import INPUTS, build_symbol, param_shapes

FLOAT = 4  # bytes
PROCESS = 250e6  # Python, MXNet, OpenCV and what oneDNN compiles
# Copies of the parameters while training: weights, gradients, momentum, the module's own; on a CPU
# oneDNN's rearranged ones for forward, gradients of data and gradients of weights.
COPIES = 4
REARRANGED = 3
ALIVE = 1.4  # of prediction: oneDNN's rearranged copies of outputs
CUDNN = 1e9  # workspaces and context of a GPU; not measured
CROP_STEP = 32  # pixels, in the search for a crop that fits


def training_bytes(
    symbol: mx.sym.Symbol,
    crop_hw: Sequence[int],
    crops: int,
    device: str = "cpu",
    devices: int = 1,
    freeze: Sequence[str] = (),
) -> int:
    """Estimate the peak of a training: of the process on CPUs, of each device on GPUs.

    Parameters
    ----------
    symbol : Symbol
        The graph that is trained.
    crop_hw : sequence of int
        Height and width of the crops, multiples of the downsampling rate.
    crops : int
        Number that passes through the network at once on each device.
    device : {"cpu", "gpu"}
        Kind of the devices.
    devices : int
        How many CPU contexts share the process.
    freeze : sequence of str
        Patterns of parameters that are not trained. Layers with none below them that is trained
        have no gradient.
    """
    shape = (crops, 3, *crop_hw)
    weights = FLOAT * sum(map(math.prod, param_shapes(symbol, 8)[0].values()))
    if device == "gpu":
        return int(COPIES * weights + planned_bytes(symbol, shape, "write") + CUDNN)
    kept = FLOAT * sum(count * (1 + learns) for count, learns in _outputs(symbol, shape, freeze))
    return int(PROCESS + devices * ((COPIES + REARRANGED) * weights + kept))


def _outputs(
    symbol: mx.sym.Symbol, data_shape: Sequence[int], freeze: Sequence[str]
) -> list[tuple[int, bool]]:
    """Count the values of each layer's output; say whether it has a gradient."""
    internals = symbol.get_internals()
    sizes: dict[str, int] = defaultdict(int)  # of all outputs of a node
    for number, shape in enumerate(internals.infer_shape(data=tuple(data_shape))[1]):
        sizes[internals[number].name] += math.prod(shape)
    states = set(symbol.list_auxiliary_states())
    found, learns = [], []
    for node in graph_nodes(symbol):
        name = node["name"]
        if node["op"] == "null":
            fixed = name in (*INPUTS, *states) or any(fnmatch(name, one) for one in freeze)
            learns.append(not fixed)
            continue
        learns.append(any(learns[source] for source, *_ in node["inputs"]))
        found.append((sizes[name], learns[-1]))
    return found


def planned_bytes(symbol: mx.sym.Symbol, data_shape: Sequence[int], grad_req: str) -> int:
    """Return what MXNet's memory planner reserves for everything but the parameters."""
    executor = symbol.simple_bind(mx.cpu(), grad_req=grad_req, data=tuple(data_shape))
    return int(re.findall(r"Total (\d+) MB allocated", executor.debug_str())[-1]) * 2**20


def predicting_bytes(symbol: mx.sym.Symbol, hw: Sequence[int]) -> int:
    """Estimate what a prediction of an image takes beside the process and the parameters.

    Layers' outputs are freed after their last use: the most that is alive at once counts, times
    `ALIVE` for oneDNN's rearranged copies. To them come the probabilities of each class, and the
    rearranged parameters.

    Parameters
    ----------
    symbol : Symbol
        A graph of inference (:mod:`train.folding`), without parameters that prediction lacks.
    hw : sequence of int
        Height and width as the network sees them.
    """
    nodes = graph_nodes(symbol)
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, *hw))
    inputs, (_, classes, _) = symbol.list_inputs(), shapes[-1]
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
    weights = sum(sizes[name] for name in inputs if name != "data")
    return int(FLOAT * (ALIVE * most + (classes + 6) * math.prod(hw) + weights))


def quantizing_bytes(symbol: mx.sym.Symbol, hw: Sequence[int]) -> int:
    """Estimate what calibration on images of that size takes, ONNX Runtime's with it.

    Fitted to one network at two sizes, within 8%.
    """
    return int(4 * predicting_bytes(symbol, hw) + 200e6)


def validating_bytes(config: Config, dataset: DatasetSpec, frame_hw: Sequence[int]) -> int:
    """Estimate what the validation of a whole frame takes beside a training."""
    side = config.network.downsample
    padded = [-(-length // side) * side for length in frame_hw]
    return predicting_bytes(inference_graph(build_symbol(config, dataset)), padded)


def free_bytes(
    context: mx.Context,
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int:
    """Return the free memory of a GPU, or of this machine within this process's cgroup limits."""
    if context.device_type == "gpu":
        return mx.context.gpu_memory_info(context.device_id)[0]
    free = psutil.virtual_memory().available
    for folder in cgroup_folders("memory", cgroup_root, membership):
        left = _cgroup_left(folder)
        free = free if left is None else min(free, left)
    return free


def used_bytes(contexts: Sequence[mx.Context]) -> int:
    """Return the most that this process has held; of GPUs, what is taken of the fullest now."""
    if contexts[0].device_type == "cpu":
        return int(peak_memory() * 2**20)
    told = (mx.context.gpu_memory_info(context.device_id) for context in contexts)
    return max(total - free for free, total in told)


def _cgroup_left(folder: Path) -> int | None:
    """Return the memory that a cgroup of version 2 or 1 has left; None without a limit."""
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
    # The kernel frees cached files when memory is short.
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics, re.MULTILINE)
    return int(text) - taken + (int(cached[1]) if cached else 0)


class TrainingMemory:
    """Estimates what a training takes: of the process on CPUs, of each device on GPUs.

    Parameters
    ----------
    config, dataset
        As for :func:`train.trainer.train`.
    kind, devices
        As for :func:`training_bytes`.
    frame_hw : tuple of int, optional
        Size of a frame of the validation; None: there is none.
    """

    def __init__(
        self,
        config: Config,
        dataset: DatasetSpec,
        kind: str = "cpu",
        devices: int = 1,
        frame_hw: Sequence[int] | None = None,
    ):
        self._config, self._kind, self._devices = config, kind, devices
        self._symbol = build_symbol(config, dataset, training=True)
        self.crops = max(1, config.solver.batch_size // devices // config.solver.accumulate)
        self.validation = validating_bytes(config, dataset, frame_hw) if frame_hw else 0

    def network(self, crops: int, crop_hw: Sequence[int]) -> int:
        """Of so many crops at once on each device."""
        freeze = self._config.solver.freeze
        return training_bytes(self._symbol, crop_hw, crops, self._kind, self._devices, freeze)

    def waiting(self, crop_hw: Sequence[int]) -> int:
        """Of batches that are prepared ahead, and of frames that are kept (``data.cache_mb``)."""
        if self._kind == "gpu":
            return 0
        data = self._config.data
        crop = 4 * FLOAT * math.prod(crop_hw)
        return (data.queue + 1) * self._config.solver.batch_size * crop + data.cache_mb * 2**20

    def total(self, crops: int | None = None, crop_hw: Sequence[int] | None = None) -> int:
        """Of everything; by default as it is configured."""
        crops, crop_hw = crops or self.crops, crop_hw or self._config.data.crop_hw
        return self.network(crops, crop_hw) + self.waiting(crop_hw) + self.validation

    def what_fits(self, free: int) -> str:
        """Say how the batch has to be cut, or else how large a crop may be."""
        crop_hw, before = self._config.data.crop_hw, self._config.solver.accumulate
        for crops in range(self.crops - 1, 0, -1):
            if self.crops % crops == 0 and self.total(crops) <= free:
                parts = before * self.crops // crops
                return f"the same batch fits in parts: --set solver.accumulate={parts}"
        parts = f" --set solver.accumulate={before * self.crops}" if self.crops > 1 else ""
        for percent in range(95, 10, -5):
            height, width = (side * percent // 100 // CROP_STEP * CROP_STEP for side in crop_hw)
            if min(height, width) and self.total(1, (height, width)) <= free:
                return f"smaller crops fit: --set data.crop_hw={height},{width}{parts}"
        return "no size of crop fits: free memory, or take a smaller network.width or depth"


def check_training(
    config: Config,
    dataset: DatasetSpec,
    contexts: Sequence[mx.Context],
    frame_hw: tuple[int, int] | None,
    ignore: bool = False,
) -> int:
    """Return the bytes that a training takes, its validation on whole frames with it.

    Parameters
    ----------
    config, dataset, frame_hw
        As for :class:`TrainingMemory`.
    contexts : sequence of Context
        The devices.
    ignore : bool
        Do not raise an error for too little memory.

    Raises
    ------
    RunError
        More than is free; the sentence says what would fit.
    """
    kind, devices = contexts[0].device_type, len(contexts)
    memory = TrainingMemory(config, dataset, kind, devices, frame_hw)
    if not ignore:
        check_free("training", memory.total(), contexts, memory.what_fits)
    return memory.total()


def check_free(
    what: str, need: int, contexts: Sequence[mx.Context], advice: Callable[[int], str]
) -> None:
    """Raise ``RunError`` where less than ``need`` bytes are free, with the advice for what is."""
    free, context = min(((free_bytes(one), one) for one in contexts), key=lambda pair: pair[0])
    if need > free:
        where = "the machine" if context.device_type == "cpu" else f"GPU {context.device_id}"
        raise RunError(
            f"{what} needs about {need / 1e9:.1f} GB, and {where} has {free / 1e9:.1f} GB free; "
            f"{advice(free)}; --ignore-memory tries all the same"
        )
