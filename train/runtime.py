"""Threads, CUDA libraries, errors and devices: import this first in every command.

Importing it makes MXNet use every core that this process may use, and lets mxnet-cu112 find the
CUDA libraries that pip installed. Both must happen before MXNet loads; later they have no effect.
If MXNet cannot load, the import ends the program with one sentence and exit code 2.
"""

from __future__ import annotations

from .command import command  # isort: skip  # first: Ctrl-C must find its handler

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

from configs.errors import ConfigError

from . import cuda, machine
from .errors import RunError

if TYPE_CHECKING:
    import mxnet as mx

__all__ = ["command", "contexts"]

_log = logging.getLogger(__name__)


def contexts(gpus: str | None = None, cpus: int | None = None) -> list[mx.Context]:
    """Return the devices to compute on; several CPU contexts share the threads of one.

    Call it before MXNet loads: MXNet then reads the number of threads.

    Parameters
    ----------
    gpus : str, optional
        GPU numbers as in ``"0,1"``. By default every usable GPU with the CUDA build of MXNet (one
        CPU where there is none), and one CPU with the CPU build.
    cpus : int, optional
        This many CPU contexts instead, to try data parallelism without GPUs.

    Raises
    ------
    ConfigError
        An argument is malformed.
    RunError
        A GPU is not there, or MXNet cannot run on it.
    """
    if cpus is not None and cpus < 1:
        raise ConfigError(f"--cpus: expected at least 1, got {cpus}")
    if cpus is not None:
        # Each context uses this many threads; with twice as many threads as cores, training is four
        # times slower.
        os.environ["OMP_NUM_THREADS"] = str(max(1, machine.compute_threads() // cpus))
    import mxnet as mx

    if cpus is not None:
        return [mx.cpu(index) for index in range(cpus)]
    built_for_cuda = mx.runtime.Features().is_enabled("CUDA")
    if gpus is None:
        numbers = _all_usable(cuda.gpus()) if built_for_cuda else []
        return [mx.gpu(number) for number in numbers] or [mx.cpu()]
    if not built_for_cuda:
        raise RunError(
            f"--gpus {gpus}: this is MXNet's CPU build; for GPUs: pip uninstall -y mxnet, then "
            "pip install -e '.[cu112]'"
        )
    return [mx.gpu(number) for number in _checked(gpus, cuda.gpus())]


def _checked(wanted: str, present: list[cuda.Gpu]) -> list[int]:
    """Parse ``"0,1"`` into GPU numbers, each of which is present, usable and named once."""
    try:
        numbers = [int(number) for number in wanted.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"--gpus: expected different numbers as in 0,1, got {wanted!r}")
    by_number = {gpu.index: gpu for gpu in present}
    for number in numbers:
        if number not in by_number:
            found = ", ".join(map(str, by_number)) or "none"
            raise RunError(f"--gpus: there is no GPU {number} (GPUs found: {found})")
        if not by_number[number].usable:
            raise RunError(_unusable(by_number[number]))
    return numbers


def _all_usable(present: list[cuda.Gpu]) -> list[int]:
    for gpu in present:
        if not gpu.usable:
            _log.warning("left out: %s", _unusable(gpu))
    return [gpu.index for gpu in present if gpu.usable]


def _unusable(gpu: cuda.Gpu) -> str:
    return (
        f"{gpu}: MXNet 1.9.1 runs on compute capability {machine.dotted(cuda.OLDEST_GPU)} to "
        f"{machine.dotted(cuda.NEWEST_GPU)} only; use the CPU here, and ONNX to run a trained "
        "model on other GPUs"
    )


class _BeforeMxnet(MetaPathFinder):
    """Looks at the memory when MXNet is about to load, wherever that is; it finds nothing."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "mxnet":
            with _ended_by_one_sentence():
                machine.check_address_space()


@contextmanager
def _ended_by_one_sentence() -> Iterator[None]:
    """End the program with exit code 2 where the machine cannot be used."""
    try:
        yield
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _prepare() -> None:
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # else each command begins with output
    # OpenCV and FFmpeg would print lines of their own beside our error where a film does not open.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    sys.meta_path.insert(0, _BeforeMxnet())
    with _ended_by_one_sentence():
        machine.check_python()
        machine.check_pixel_limit()
        if sys.flags.optimize > 1:
            raise RunError(
                "python -OO (PYTHONOPTIMIZE=2) drops docstrings, without which MXNet 1.9.1 does "
                "not load: unset it"
            )
        # By default MXNet takes half the processors of the machine, whatever this process may use.
        # Of a list (one number per level of nesting) it can only read the first.
        os.environ["OMP_NUM_THREADS"] = str(machine.compute_threads())
        if machine.mxnet_wheel() == "mxnet-cu112":
            cuda.load_libraries()


_prepare()
