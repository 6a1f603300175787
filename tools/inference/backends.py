"""The network on ONNX Runtime or OpenVINO, for machines where one of them is faster than MXNet."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from configs.schema import Network
from tools.export_onnx import export
from tools.inference.run import RunParts, require
from train.machine import compute_threads
from train.segmenter import PixelSegmenter


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
    """Export a run to a temporary ONNX file and load that into ``backend``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export(run, file)
        return BACKENDS[backend](file, run.config.network, **options)
