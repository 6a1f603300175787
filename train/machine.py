"""What this machine offers: cores, CUDA 11 libraries, GPUs, and which MXNet is installed.

Standard library only, so that it can say what is missing before anything else is imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import RunError

PYTHONS = ((3, 9), (3, 11))
WHEELS = ("mxnet", "mxnet-cu112")
PROJECT = Path(__file__).resolve().parents[1]

# Packages that results depend on, by their names in pip.
PACKAGES = (
    *WHEELS,
    "numpy",
    "opencv-python",
    "Pillow",
    "scipy",
    "gluoncv",
    "pydensecrf2",
    "onnx",
    "onnxruntime",
    "openvino",
    "cityscapesscripts",
)

LEAST_ADDRESS_SPACE = 2 << 30  # bytes; loading MXNet alone maps 0.9 GB with 2 threads

# Instructions that the speed of int8 and bfloat16 depends on.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

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


def check_python(python: tuple[int, int] = sys.version_info[:2]) -> None:
    """Raise `RunError` if MXNet 1.9.1 and its NumPy don't run on this Python."""
    oldest, newest = PYTHONS
    if not oldest <= python <= newest:
        raise RunError(
            f"this is Python {dotted(python)}, and MXNet 1.9.1 runs on {dotted(oldest)} to "
            f"{dotted(newest)}: run 'make demo' once and use .venv/bin/python"
        )


def mxnet_wheel() -> str | None:
    """Return the installed one of `WHEELS`; None if MXNet was not installed by pip.

    Raises
    ------
    RunError
        Both are installed (they overwrite each other's files), or MXNet is missing.
    """
    found = [name for name in WHEELS if name in versions()]
    if len(found) > 1:
        raise RunError(
            "both mxnet and mxnet-cu112 are installed, and each has overwritten files of the "
            "other: pip uninstall -y mxnet mxnet-cu112, then pip install -e '.[cpu]' or "
            "'.[cu112]'"
        )
    if found:
        return found[0]
    if importlib.util.find_spec("mxnet") is None:
        raise RunError(
            f"MXNet is not installed for {sys.executable}: run 'make demo' once and use "
            ".venv/bin/python, or pip install -e '.[cpu]' ('.[cu112]' with an NVIDIA GPU)"
        )
    return None


def load_cuda_libraries() -> list[str]:
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


def allowed_cores(
    cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Return how many cores this process may use: affinity and cgroup quota, rounded up."""
    cores = len(os.sched_getaffinity(0))
    for folder in cgroup_folders("cpu", cgroup_root, membership):
        quota = _cgroup_quota(folder)
        if quota is not None:
            cores = min(cores, math.ceil(quota))
    return max(1, cores)


def compute_threads() -> int:
    """Return how many threads to compute with: the user's OMP_NUM_THREADS, else allowed_cores().

    Raises
    ------
    RunError
        OMP_NUM_THREADS is no number of threads (or list of them, of which the first counts).
    """
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return allowed_cores()
    first = text.split(",")[0].strip()
    if not first.isdecimal() or int(first) < 1:
        raise RunError(f"OMP_NUM_THREADS={text}: expected a number of threads, at least 1")
    return int(first)


def check_pixel_limit() -> None:
    """Raise `RunError` if the user's limit for images is no number; OpenCV would abort."""
    name = "OPENCV_IO_MAX_IMAGE_PIXELS"  # data_iter.image_files reads it too
    text = os.environ.get(name)
    if text is not None and not re.fullmatch("[1-9][0-9]{0,18}", text):
        raise RunError(f"{name}={text}: expected a number of pixels, without a unit")


def check_address_space() -> None:
    """Raise `RunError` if this process may not use the address space that loading MXNet takes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise RunError(
            f"this process may have {limit >> 20} MB of address space (ulimit -v); MXNet needs "
            f"{LEAST_ADDRESS_SPACE >> 20} MB to begin with, and aborts without"
        )


def peak_memory() -> float:
    """Return the most memory in MB (2**20 bytes) that this process has held.

    ``ru_maxrss`` would not do: a process inherits it from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kib[1]) / 1024 if kib else float("nan")


def processor() -> str:
    """Return the processor's name and which of `INSTRUCTIONS` it has."""
    present = instructions()
    has = " ".join(name for name in INSTRUCTIONS if name in present)
    model = _cpuinfo("model name") or platform.machine()
    return f"{model} ({has or 'no wide instructions known'})"


def instructions() -> set[str]:
    """Return the names of the processor's instruction sets; empty if they are unknown."""
    return set(_cpuinfo("flags").split())


def commit() -> str:
    """Return git's commit of this project, and whether files differ from it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout, or no git)"


def versions() -> dict[str, str]:
    """Return the version of each of `PACKAGES` that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor; empty if it is missing."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def cgroup_folders(controller: str, root: Path, membership: Path) -> list[Path]:
    """List this process's cgroups for ``cpu`` or ``memory``, each with all of its ancestors.

    Versions 1 and 2 are read. In a container the path can be the host's and not exist here; its
    ancestors up to the mount point still hold the container's own quota.
    """
    folders = []
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            base = root / controllers
            group = base / path.lstrip("/")
            folders += [
                folder for folder in (group, *group.parents) if base in (folder, *folder.parents)
            ]
    return folders


def _cgroup_quota(folder: Path) -> float | None:
    """Return the cores that one cgroup allows, None for no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


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


def dotted(numbers: tuple[int, ...]) -> str:
    """Write a version or compute capability: (8, 9) as 8.9."""
    return ".".join(map(str, numbers))
