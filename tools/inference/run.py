"""Read a run folder for prediction and export: its configuration, classes and network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.schema import Config
from train.network import build_symbol, check_params
from train.params import Params
from train.run_dir import RunDir


class Description(NamedTuple):
    """The description of a network: everything except graph and parameters.

    ``long_side`` is the median length in pixels of the training images' longer sides, None where
    it was not recorded.
    """

    config: Config
    dataset: DatasetSpec
    long_side: int | None


@dataclass(frozen=True)
class RunParts:
    """The parts of a run folder for prediction and export.

    ``ready`` means that ``symbol`` is a graph made for inference (int8 or bf16, ``quantize.py``),
    not the one that the configuration describes.
    """

    path: Path
    config: Config
    dataset: DatasetSpec
    symbol: mx.sym.Symbol
    arg_params: Params
    aux_params: Params
    ready: bool
    long_side: int | None = None

    @property
    def description(self) -> Description:
        """Everything except the graph and its parameters."""
        return Description(self.config, self.dataset, self.long_side)


def read_run(run_dir: Path, epoch: int | str = "last") -> RunParts:
    """Read a run folder: the parameters after ``epoch`` epochs, the ``last`` or the ``best``.

    Raises
    ------
    RunError
        The folder is not a run folder, has no such parameters, or they do not fit its network.
    """
    run = RunDir(run_dir)
    config, dataset = run.load()
    params = run.load_params(epoch)
    ready = run.is_for_inference()
    symbol = run.inference_graph() if ready else build_symbol(config, dataset)
    check_params(symbol, *params, run.path, config.network.downsample)
    return RunParts(run.path, config, dataset, symbol, *params, ready, run.long_side())
