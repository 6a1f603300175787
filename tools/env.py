"""Print what a bug report needs: versions, processor, memory, GPUs, free disk.

  python tools/env.py
  python tools/env.py --json

It works where MXNet does not, and says why MXNet does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(PROJECT)

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version

from train import RunError, machine  # train.runtime would stop where MXNet cannot load

PACKAGES = (
    *machine.WHEELS,
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

MISSING = "not installed"

# What the speed of int8 and bfloat16 hangs on.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    report = {
        "project": {"folder": str(PROJECT), "commit": commit()},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": {"platform": platform.platform(), "processor": processor(), **memory(), **disk()},
        "threads": threads(),
        "mxnet": {"loads": mxnet_loads()},
        "gpus": gpus(),
        "packages": {name: installed(name) for name in PACKAGES},
    }
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    for section, entries in report.items():
        print(section)
        for key, value in entries.items():
            print(f"  {key:<20} {value}")
    return 0


def commit() -> str:
    """Return git's commit of this project, and whether files differ from it."""
    try:
        return _output("git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout, or no git)"


def processor() -> str:
    """Return the processor's name and which of `INSTRUCTIONS` it has."""
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    has = " ".join(name for name in INSTRUCTIONS if name in present)
    return f"{model[1] if model else platform.machine()} ({has or 'no wide instructions known'})"


def memory() -> dict[str, str]:
    """Return the machine's memory, all of it and what is free to use."""
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    return {
        name: f"{int(kib[key]) / 2**20:.1f} GiB" if key in kib else "unknown"
        for name, key in (("memory", "MemTotal"), ("memory available", "MemAvailable"))
    }


def disk() -> dict[str, str]:
    """Return the free space where the project and where temporary files lie."""
    return {
        f"free in {folder}": f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"
        for folder in (str(PROJECT), tempfile.gettempdir())
    }


def threads() -> dict[str, object]:
    """Return the cores of the machine, those allowed, and the threads that MXNet gets."""
    allowed = machine.allowed_cores()
    return {
        "cores": os.cpu_count(),
        "allowed": allowed,
        "used": os.environ.get("OMP_NUM_THREADS", allowed),
        "set by": "OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else "cores allowed",
    }


def mxnet_loads() -> str:
    """Load MXNet as every command does, in a process that may die of it; say how it went."""
    code = (
        "import train.runtime, mxnet\n"
        "cuda = mxnet.runtime.Features().is_enabled('CUDA')\n"
        "print('yes:', mxnet.__version__, 'with CUDA' if cuda else 'for the CPU')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return result.stdout.strip()
    lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    return "no: " + lines[-1].split("error: ", 1)[-1]


def gpus() -> dict[str, object]:
    """Return the driver, each GPU and whether mxnet-cu112 runs on it, and the CUDA libraries."""
    driver = _read("/proc/driver/nvidia/version").splitlines()
    found = machine.gpus()
    report: dict[str, object] = {"driver": driver[0] if driver else "none", "found": len(found)}
    for gpu in found:
        report[str(gpu)] = "mxnet-cu112 runs on it" if gpu.usable else "not for mxnet-cu112"
    if installed("mxnet-cu112") != MISSING:
        try:
            report["CUDA 11 libraries"] = f"all {len(machine.load_cuda_libraries())} load"
        except RunError as error:
            report["CUDA 11 libraries"] = str(error)
    return report


def installed(package: str) -> str:
    """Return a package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
