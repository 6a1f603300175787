"""The network of a run folder, on MXNet, ONNX Runtime or OpenVINO: whichever is faster here."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from configs.schema import Network
from tools.inference.onnx import export
from tools.inference.precision import is_bf16, require_bf16
from tools.inference.run import RunParts, read_run
from train.machine import compute_threads
from train.run_dir import RunDir
from train.segmenter import PixelSegmenter, Segmenter

# MXNet keeps four copies of its scratch memory unless told otherwise, 400 MB for a frame of
# Cityscapes; it reads this when it first computes, and prediction runs one layer at a time.
os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")
# Of what oneDNN prepares for an image size MXNet forgets nothing unless told how much to keep: half
# a megabyte for every new size. No operator that goes through this memory stands in one of our
# folded graphs so often that 16 would slow down images of one size.
os.environ.setdefault("MXNET_MKLDNN_CACHE_NUM", "16")


def load_segmenter(
    run_dir: Path,
    epoch: int | str | None = None,
    context: mx.Context | None = None,
    backend: str = "mxnet",
) -> tuple[PixelSegmenter, DatasetSpec]:
    """Load the network of a run folder, and the classes that it knows.

    Parameters
    ----------
    run_dir : Path
        As ``train/train_model.py`` leaves it.
    epoch : int or "best", optional
        Of the parameters; the newest by default.
    context : Context, optional
        Where MXNet runs; the CPU by default.
    backend : {"mxnet", "onnxruntime", "openvino"}
        The library that computes.

    Raises
    ------
    RunError
        The folder is no run folder, has no such parameters, or they do not fit its network; or it
        computes in bf16, which this processor cannot.
    ConfigError
        The backend is not installed.
    """
    if backend != "mxnet":
        require(backend)  # before the parameters are read
    run = read_run(run_dir, epoch)
    if backend != "mxnet":
        return run_on(backend, run), run.dataset
    if run.ready and is_bf16(run.symbol):
        require_bf16()
    params = (run.arg_params, run.aux_params)
    segmenter = Segmenter(run.symbol, *params, run.config.network, context or mx.cpu())
    return segmenter, run.dataset


def fastest_backend(run_dir: Path, context: mx.Context) -> str:
    """Name the backend that was fastest for such a run, of those that are installed.

    On CPUs OpenVINO came first in fp32 and int8, then ONNX Runtime in fp32 (docs/measurements.md).
    GPUs are MXNet's, as are bf16 folders and int8 folders without an ONNX file.
    """
    run = RunDir(run_dir)
    quantised = run.is_for_inference()
    if context.device_type != "cpu" or (quantised and not run.inference_onnx.is_file()):
        return "mxnet"
    order = ("openvino",) if quantised else ("openvino", "onnxruntime")
    return next((name for name in order if importlib.util.find_spec(name)), "mxnet")


def require(library: str) -> ModuleType:
    """Import a library that is an extra of setup.py; ``ConfigError`` says how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"{library} cannot be loaded ({error}): pip install -e '.[{library}]'"
        ) from None


class OnnxruntimeSegmenter(PixelSegmenter):
    """Runs an ONNX file of ``tools/export_onnx.py`` (cells, any size) on ONNX Runtime."""

    def __init__(self, file: Path, network: Network):
        super().__init__(network)
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = compute_threads()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(
            str(file), options, providers=runtime.get_available_providers()
        )

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        return self._session.run(None, {"data": data})[0][0]


class OpenvinoSegmenter(PixelSegmenter):
    """Runs the same file on OpenVINO.

    ``precision`` is OpenVINO's hint, ``f32`` or ``bf16``; it would choose bf16 by itself where the
    processor has it. The package reports its use to its makers unless ``opt_in_out --opt_out`` has
    been called.
    """

    def __init__(self, file: Path, network: Network, precision: str = "f32"):
        super().__init__(network)
        openvino = require("openvino")
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": str(compute_threads()),
            # Layers prepared for image sizes, over all sizes; its own 5000 take half a gigabyte.
            "CPU_RUNTIME_CACHE_CAPACITY": "100",
        }
        self._core = openvino.Core()  # the compiled model reads the core's plugins
        self._model = self._core.compile_model(str(file), "CPU", settings)

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        return self._model({"data": data})[0][0]


BACKENDS = {"onnxruntime": OnnxruntimeSegmenter, "openvino": OpenvinoSegmenter}


def run_on(backend: str, run: RunParts, **options: str) -> PixelSegmenter:
    """Export a run to a temporary ONNX file and load that into ``backend``.

    A folder of ``tools/quantize.py`` has its int8 network as an ONNX file already.
    """
    file = RunDir(run.path).inference_onnx
    if run.ready and file.is_file():
        return BACKENDS[backend](file, run.config.network, **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export(run, file)
        return BACKENDS[backend](file, run.config.network, **options)
