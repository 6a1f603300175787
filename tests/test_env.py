"""tools/env.py: the report as JSON, and as text on a machine where MXNet does not load."""

import json
import os
import subprocess
import sys
from pathlib import Path

ENV = Path(__file__).resolve().parents[1] / "tools" / "env.py"


def run(*arguments, flags=(), **environment):
    return subprocess.run(
        [sys.executable, *flags, ENV, *arguments],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    ).stdout


def test_report_as_json():
    report = json.loads(run("--json", OMP_NUM_THREADS="3"))
    assert report["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert report["mxnet"]["loads"].startswith("yes: 1.9.1")
    assert report["packages"]["numpy"] == "1.23.5"
    assert report["threads"]["allowed"] <= report["threads"]["cores"]
    assert (report["threads"]["used"], report["threads"]["set by"]) == ("3", "OMP_NUM_THREADS")
    assert report["gpus"]["found"] >= 0
    total, free = (
        float(report["system"][key].split()[0]) for key in ("memory", "memory available")
    )
    assert 0 < free < total


def test_text_report_where_mxnet_does_not_load(tmp_path):
    for name in ("mxnet", "mxnet_cu112"):  # with both installed, every command refuses to start
        info = tmp_path / f"{name}-1.9.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.9.1\n")
    text = run(flags=["-S"], PYTHONPATH=str(tmp_path))  # -S hides all other packages
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["numpy", "not installed"] in lines
    assert "no: both mxnet and mxnet-cu112 are installed" in text
    for section in ("project", "python", "system", "threads", "gpus", "packages"):
        assert [section] in lines
