"""The network of a run folder, on MXNet, ONNX Runtime or OpenVINO: whichever is faster here."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Union

import mxnet as mx
import numpy as np

from configs.errors import ConfigError
from configs.schema import Network
from tools.inference.onnx import export, read_description
from tools.inference.precision import is_bf16, require_bf16
from tools.inference.run import Description, RunParts, read_run
from train.errors import RunError
from train.machine import compute_threads
from train.run_dir import RunDir
from train.segmenter import PixelSegmenter, Segmenter

# MXNet keeps four copies of its scratch memory unless told otherwise, 400 MB for a frame of
# Cityscapes; it reads this when it first computes, and prediction runs one layer at a time.
os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")
# MXNet keeps everything that oneDNN prepares for an image size, half a megabyte for every new size,
# unless this limits it. No operator that uses this cache occurs so often in a folded graph that 16
# entries would slow down images of one size.
os.environ.setdefault("MXNET_MKLDNN_CACHE_NUM", "16")

DEFAULT_FOR_ONNX = "onnxruntime"


class OnnxFile(NamedTuple):
    """An ONNX file of ``tools/export_onnx.py``, and its description of the network."""

    path: Path
    description: Description


Model = Union[RunParts, OnnxFile]


def read_model(model: Path, epoch: int | str = "last", backend: str | None = None) -> Model:
    """Read a run folder, or the description in an ONNX file of ``tools/export_onnx.py``.

    Raises
    ------
    RunError
        There is no such file or folder; it is neither a run folder nor an ONNX file; it has no such
        parameters, or they do not fit its network.
    ConfigError
        The backend is not installed, or cannot run this kind of model.
    """
    if not model.exists():
        raise RunError(f"{model}: no such run folder or ONNX file")
    if model.is_dir():
        if backend in BACKENDS:
            require(backend)  # before the parameters are read
        return read_run(model, epoch)
    if model.suffix != ".onnx":
        raise RunError(f"{model}: expected a run folder or an .onnx file")
    if backend == "mxnet":
        raise ConfigError(f"{model}: MXNet runs run folders; choose onnxruntime or openvino")
    if epoch != "last":
        raise ConfigError(f"--epoch {epoch}: {model} holds the parameters of one epoch only")
    require(backend or DEFAULT_FOR_ONNX)
    return OnnxFile(model, read_description(model))


def open_segmenter(
    model: Model,
    backend: str | None = None,
    threads: int | None = None,
    context: mx.Context | None = None,
) -> tuple[PixelSegmenter, Description]:
    """Load the result of :func:`read_model` into a backend.

    Raises
    ------
    RunError
        The network computes in bf16, which this processor lacks, or it is made for MXNet only.
    """
    if isinstance(model, OnnxFile):
        kind = BACKENDS[backend or DEFAULT_FOR_ONNX]
        return kind(model.path, model.description.config.network, threads), model.description
    if backend in BACKENDS:
        return run_on(backend, model, threads), model.description
    if threads:
        raise ConfigError("threads: MXNet takes OMP_NUM_THREADS, set before the process starts")
    if model.ready and is_bf16(model.symbol):
        require_bf16()
    params = (model.arg_params, model.aux_params)
    segmenter = Segmenter(model.symbol, *params, model.config.network, context or mx.cpu())
    return segmenter, model.description


def fastest_backend(run_dir: Path, context: mx.Context) -> str:
    """Name the installed backend that was fastest for such a run.

    On CPUs OpenVINO was fastest in fp32 and int8, then ONNX Runtime in fp32 (docs/measurements.md).
    MXNet runs GPUs, bf16 folders, and int8 folders without an ONNX file.
    """
    if not run_dir.is_dir():  # an ONNX file
        return "openvino" if importlib.util.find_spec("openvino") else DEFAULT_FOR_ONNX
    run = RunDir(run_dir)
    quantised = run.is_for_inference()
    if context.device_type != "cpu" or (quantised and not run.inference_onnx.is_file()):
        return "mxnet"
    order = ("openvino",) if quantised else ("openvino", "onnxruntime")
    return next((name for name in order if importlib.util.find_spec(name)), "mxnet")


def require(library: str, extra: str | None = None) -> ModuleType:
    """Import a library that is an extra of setup.py; ``ConfigError`` says how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"{library} cannot be loaded ({error}): pip install -e '.[{extra or library}]'"
        ) from None


class OnnxruntimeSegmenter(PixelSegmenter):
    """Runs an ONNX file of ``tools/export_onnx.py`` (cells, any size) on ONNX Runtime."""

    def __init__(self, file: Path, network: Network, threads: int | None = None):
        super().__init__(network)
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or compute_threads()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(
            str(file), options, providers=runtime.get_available_providers()
        )

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        return self._session.run(None, {"data": data})[0][0]


class OpenvinoSegmenter(PixelSegmenter):
    """Runs the same file on OpenVINO.

    ``precision`` is OpenVINO's hint, ``f32`` or ``bf16``; by default it chooses bf16 if the
    processor has it. The package reports its use to its makers unless ``opt_in_out --opt_out`` has
    been called.
    """

    def __init__(
        self, file: Path, network: Network, threads: int | None = None, precision: str = "f32"
    ):
        super().__init__(network)
        openvino = require("openvino")
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": str(threads or compute_threads()),
            # Layers prepared for image sizes, over all sizes; its own 5000 take half a gigabyte.
            "CPU_RUNTIME_CACHE_CAPACITY": "100",
        }
        self._core = openvino.Core()  # the compiled model reads the core's plugins
        self._model = self._core.compile_model(str(file), "CPU", settings)

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        return self._model({"data": data})[0][0]


BACKENDS = {"onnxruntime": OnnxruntimeSegmenter, "openvino": OpenvinoSegmenter}


def run_on(
    backend: str, run: RunParts, threads: int | None = None, **options: str
) -> PixelSegmenter:
    """Export a run to a temporary ONNX file and load that into ``backend``.

    A folder of ``tools/quantize.py`` has its int8 network as an ONNX file already.
    """
    file = RunDir(run.path).inference_onnx
    if run.ready and file.is_file():
        return BACKENDS[backend](file, run.config.network, threads, **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export(run, file)
        return BACKENDS[backend](file, run.config.network, threads, **options)
