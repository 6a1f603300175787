"""Print what a bug report needs: versions, processor, memory, GPUs, free disk.

  python tools/env.py
  python tools/env.py --json

It also works where MXNet does not, and then says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# First, as in every command. Not train.runtime: it stops where MXNet cannot load.
from train.command import command  # isort: skip

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile

from train import RunError, cuda, machine

MISSING = "not installed"


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    report = {
        "project": {"folder": str(machine.PROJECT), "commit": machine.commit()},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": {
            "platform": platform.platform(),
            "processor": machine.processor(),
            **memory(),
            **disk(),
        },
        "threads": threads(),
        "mxnet": {"loads": mxnet_loads()},
        "gpus": gpus(),
        "packages": {name: machine.versions().get(name, MISSING) for name in machine.PACKAGES},
    }
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    for section, entries in report.items():
        print(section)
        for key, value in entries.items():
            print(f"  {key:<20} {value}")
    return 0


def memory() -> dict[str, str]:
    """Return the machine's memory: total and available."""
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    return {
        name: f"{int(kib[key]) / 2**20:.1f} GiB" if key in kib else "unknown"
        for name, key in (("memory", "MemTotal"), ("memory available", "MemAvailable"))
    }


def disk() -> dict[str, str]:
    """Return the free disk space for the project and for temporary files."""
    return {
        f"free in {folder}": f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"
        for folder in (str(machine.PROJECT), tempfile.gettempdir())
    }


def threads() -> dict[str, object]:
    """Return the machine's cores, the allowed ones, and the threads that MXNet gets."""
    allowed, chosen = machine.allowed_cores(), os.environ.get("OMP_NUM_THREADS", "").strip()
    return {
        "cores": os.cpu_count(),
        "allowed": allowed,
        "used": chosen or allowed,
        "set by": "OMP_NUM_THREADS" if chosen else "cores allowed",
    }


def mxnet_loads() -> str:
    """Load MXNet as every command does, in a child process, since it may crash; say how it went."""
    code = (
        "import train.runtime, mxnet\n"
        "cuda = mxnet.runtime.Features().is_enabled('CUDA')\n"
        "print('yes:', mxnet.__version__, 'with CUDA' if cuda else 'for the CPU')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=machine.PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 0:
        return result.stdout.strip()
    lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    return "no: " + lines[-1].split("error: ", 1)[-1]


def gpus() -> dict[str, object]:
    """Return the driver, each GPU and whether mxnet-cu112 runs on it, and the CUDA libraries."""
    driver = _read("/proc/driver/nvidia/version").splitlines()
    found = cuda.gpus()
    report: dict[str, object] = {"driver": driver[0] if driver else "none", "found": len(found)}
    for gpu in found:
        report[str(gpu)] = "mxnet-cu112 runs on it" if gpu.usable else "not for mxnet-cu112"
    if "mxnet-cu112" in machine.versions():
        try:
            report["CUDA 11 libraries"] = f"all {len(cuda.load_libraries())} load"
        except RunError as error:
            report["CUDA 11 libraries"] = str(error)
    return report


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
