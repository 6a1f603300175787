"""The GPUs of this machine, and the CUDA 11 libraries that MXNet's CUDA build needs.

Standard library only: what is missing must be said before MXNet is imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from .errors import RunError
from .machine import dotted

# Compute capabilities in the binary of mxnet-cu112 1.9.1: machine code for sm_50 to sm_86 and no
# PTX, so it runs on 5.0 to 8.9 (Maxwell to Ada) and cannot be translated for Hopper and later.
OLDEST_GPU = (5, 0)
NEWEST_GPU = (8, 9)

# What libmxnet.so of mxnet-cu112 links to and what that needs itself, as (folder in
# site-packages/nvidia, library); each one after those it depends on.
CUDA_LIBRARIES = (
    ("cuda_runtime", "libcudart.so.11.0"),
    ("nvtx", "libnvToolsExt.so.1"),
    ("cuda_nvrtc", "libnvrtc.so.11.2"),
    ("cublas", "libcublasLt.so.11"),
    ("cublas", "libcublas.so.11"),
    ("cufft", "libcufft.so.10"),
    ("curand", "libcurand.so.10"),
    ("cusolver", "libcusolver.so.11"),
    ("cudnn", "libcudnn.so.8"),
    ("nccl", "libnccl.so.2"),
)

# Attribute numbers of cuDeviceGetAttribute, from cuda.h.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One GPU; `index` is CUDA's and MXNet's (so it counts within CUDA_VISIBLE_DEVICES)."""

    index: int
    name: str
    capability: tuple[int, int]

    @property
    def usable(self) -> bool:
        """Whether mxnet-cu112 holds code for this GPU."""
        return OLDEST_GPU <= self.capability <= NEWEST_GPU

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, compute capability {dotted(self.capability)})"


def load_libraries() -> list[str]:
    """Load the libraries that mxnet-cu112 links to, so that it finds them in the process.

    The wheel searches the loader's path only, and pip installs the libraries elsewhere. Those of
    pip come first here; a missing one is taken from the loader's path.

    Returns
    -------
    list of str
        The file, or the bare name of one found on the loader's path, per library.

    Raises
    ------
    RunError
        The driver or a library is missing.
    """
    _load(
        "libcuda.so.1",
        "the NVIDIA driver is missing; install it, or go without GPUs: "
        "pip uninstall -y mxnet-cu112, then pip install -e '.[cpu]'",
    )
    nvidia = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (nvidia and nvidia.submodule_search_locations) or []]
    loaded = []
    for package, name in CUDA_LIBRARIES:
        files = (root / package / "lib" / name for root in roots)
        target = next((str(file) for file in files if file.exists()), name)
        _load(target, "install the CUDA 11 libraries with pip install -e '.[cu112]'")
        loaded.append(target)
    return loaded


def gpus() -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver shows to this process; none without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_gpu(cuda, index) for index in range(count.value)]


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(index, name.value.decode(), (major.value, minor.value))


def _load(library: str, remedy: str) -> None:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise RunError(f"mxnet-cu112 needs {Path(library).name} ({error}): {remedy}") from None
