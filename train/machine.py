"""What this machine offers: cores, memory, its processor, and which MXNet is installed.

Standard library only, so that it can say what is missing before anything else is imported.
"""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import re
import resource
import subprocess
import sys
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


def dotted(numbers: tuple[int, ...]) -> str:
    """Write a version or compute capability: (8, 9) as 8.9."""
    return ".".join(map(str, numbers))
