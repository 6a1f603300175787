"""Time and memory of prediction: each backend and precision, in turn, in one run.

Every case runs in its own process, so that its peak memory is measured alone. All processes load
before the first one is timed; then they take turns. The network is the ResNet-101 DUC-HDC of
``release.cfg`` with random parameters, which compute as fast as learned ones.
"""

from __future__ import annotations

import train.runtime  # noqa: F401  # isort: skip  # sets threads before MXNet loads

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs.datasets import load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from data_iter.image_files import read_image
from tools.bench.measuring import in_turn, row
from tools.inference.backends import open_segmenter, require, run_on
from tools.inference.images import overlapped, segment, write_result
from tools.inference.precision import require_bf16
from tools.inference.predictor import Predictor
from tools.inference.qdq import export_int8
from tools.inference.quantization import folded, to_bf16, to_int8, write_inference_run
from tools.inference.run import read_run
from train.errors import RunError
from train.initial import initial_params
from train.machine import PROJECT, peak_memory
from train.run_dir import RunDir

CONFIG = PROJECT / "configs" / "release.cfg"
SIZES = ((544, 544),)
FRAMES = 3  # images in the folder that is timed from files to labels
# backend, precision, run folder, and the case that it is compared with
CASES = (
    ("mxnet", "fp32", "fp32", None),
    ("mxnet", "bf16", "bf16", "mxnet_fp32"),
    ("mxnet", "int8", "int8", "mxnet_fp32"),
    ("onnxruntime", "fp32", "fp32", "mxnet_fp32"),
    ("openvino", "fp32", "fp32", "mxnet_fp32"),
    ("openvino", "bf16", "fp32", "mxnet_int8"),
    ("onnxruntime", "int8", "int8", "onnxruntime_fp32"),
    ("openvino", "int8", "int8", "openvino_fp32"),
)
REFERENCE = "mxnet_fp32"  # the case that is always measured


def rows(
    *,
    runs: int = 5,
    sizes: Sequence[tuple[int, int]] = SIZES,
    cases: Sequence[str] = (),
    config: Path = CONFIG,
) -> Iterator[dict[str, Any]]:
    """Time the bare network of every case, and files to labels with MXNet, in seconds per image.

    A ratio is the median over the runs of this case's time over the time of ``ratio_to``. Memory is
    the peak of the process in MB, with parameters, libraries and Python. ``cases`` selects cases by
    name (``openvino_int8``); MXNet in fp32 is always measured.
    """
    wanted = _possible_cases(cases)
    with tempfile.TemporaryDirectory() as folder:
        say("making the networks")
        _Worker("prepare", folder, str(config)).wait_ready()
        for hw in sizes:
            yield from _size(Path(folder), wanted, hw, runs)


def _possible_cases(names: Sequence[str]) -> list[tuple[str, str, str, str | None]]:
    """Choose the cases; name those that cannot run here on standard error and leave them out."""
    known = {f"{backend}_{precision}": case for case in CASES for backend, precision in [case[:2]]}
    for name in names:
        if name not in known:
            raise ConfigError(f"--cases {name}: expected some of {', '.join(known)}")
    cases = []
    for name, case in known.items():
        if names and name not in (*names, REFERENCE):
            continue
        try:
            if case[0] != "mxnet":
                require(case[0])
            if case[1] == "bf16":
                require_bf16(case[0])
            cases.append(case)
        except (ConfigError, RunError) as error:
            say(f"left out: {case[0]} {case[1]} ({error})")
    return cases


def say(text: str) -> None:
    """Show progress on standard error, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def _size(folder: Path, cases: list[tuple], hw: tuple[int, int], runs: int) -> list[dict[str, Any]]:
    shape = f"{hw[0]}" if hw[0] == hw[1] else f"{hw[0]}x{hw[1]}"
    workers = {
        f"{backend}_{precision}": _Worker("case", str(folder / run), backend, precision, *hw)
        for backend, precision, run, _ in cases
    }
    try:
        for name, worker in workers.items():
            say(f"{shape}: loading {name}")
            worker.wait_ready()
        say(f"{shape}: measuring, {runs} runs")
        measures = {name: partial(worker.ask, "network") for name, worker in workers.items()}
        measures["files"] = partial(workers["mxnet_fp32"].ask, "files")
        times = in_turn(measures, runs)
        memory = {name: worker.ask("memory") for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    compared = {f"{backend}_{precision}": other for backend, precision, _, other in cases}
    found = []
    for name, other in (*compared.items(), ("files", "mxnet_fp32")):
        label = "mxnet_fp32_files_to_labels" if name == "files" else name
        to = f"predict_{other}_{shape}" if other in times else None
        found.append(
            row(f"predict_{label}_{shape}", "s/image", times[name], to, times.get(other, ()))
        )
    reference = f"predict_peak_memory_mxnet_fp32_{shape}"
    for name, peak in memory.items():
        to = None if name == "mxnet_fp32" else reference
        found.append(
            row(f"predict_peak_memory_{name}_{shape}", "MB", [peak], to, [memory["mxnet_fp32"]])
        )
    return found


class _Worker:
    """A child process that answers each line with one line."""

    def __init__(self, *arguments: object):
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    def wait_ready(self) -> None:
        self._read()

    def ask(self, question: str) -> float:
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        for line in self._process.stdout:
            if line.startswith("answer "):  # a line that a library printed
                return line.split(maxsplit=1)[1]
        raise RuntimeError(f"the benchmark's process ended with {self._process.wait()}")


def _answer(value: object) -> None:
    print("answer", value, flush=True)


def _prepare(folder: Path, config_file: Path) -> None:
    """Write run folders in fp32, bf16 and int8."""
    config = load_config(config_file)
    dataset = load_dataset(config.data.dataset)
    run = RunDir(folder / "fp32")
    run.create(config, dataset)
    run.save_params(0, initial_params(config, dataset))
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (256, 256, 3)).astype(np.uint8)]
    plain = folded(read_run(run.path))
    write_inference_run(folder / "bf16", to_bf16(plain), 0)
    file = None
    if importlib.util.find_spec("onnxruntime"):
        file = folder / "int8.onnx"
        export_int8(read_run(run.path), file, images, ())
    write_inference_run(folder / "int8", to_int8(plain, images, ()), 0, file)
    _answer("ready")


def _case(run_dir: Path, backend: str, precision: str, hw: tuple[int, int]) -> None:
    """Load one case, run it once, then answer requests until the input ends."""
    run = read_run(run_dir)
    if backend == "openvino":
        hint = "bf16" if precision == "bf16" else "f32"
        segmenter = run_on(backend, run, precision=hint)
    else:
        segmenter, _ = open_segmenter(run, backend)
    network = Predictor(segmenter, run.description)
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3)).astype(np.uint8)
    data = segmenter.network_input(image)
    segmenter.forward(data)
    with tempfile.TemporaryDirectory() as folder:
        _answer("ready")
        for question in sys.stdin:
            start = time.perf_counter()
            if question.strip() == "memory":
                _answer(peak_memory())
            elif question.strip() == "network":
                segmenter.forward(data)
                _answer(time.perf_counter() - start)
            else:
                _answer(_files(network, image, Path(folder)))


def _files(network: Predictor, image: np.ndarray, folder: Path) -> float:
    """Return seconds per image from image files to label files and overlays."""
    # Smooth as a street: with noise, compressing the files would take the most time.
    smooth = cv2.GaussianBlur(image, (0, 0), 8)
    files = [folder / f"{number}.png" for number in range(FRAMES)]
    for file in files:
        if not file.exists():
            cv2.imwrite(str(file), smooth)
    (folder / "out").mkdir(exist_ok=True)
    compute = partial(segment, network=network, refine=None, keep=False)
    write = partial(write_result, out=folder / "out", dataset=network.dataset)
    start = time.perf_counter()
    for _ in overlapped(files, read_image, compute, write):
        pass
    return (time.perf_counter() - start) / FRAMES


def work() -> None:
    """Run as a worker's process."""
    kind, folder, *rest = sys.argv[1:]
    if kind == "prepare":
        _prepare(Path(folder), Path(rest[0]))
    else:
        backend, precision, height, width = rest
        _case(Path(folder), backend, precision, (int(height), int(width)))


if __name__ == "__main__":
    work()
