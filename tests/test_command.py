"""How commands begin and end, in real processes: signals, closed streams, little memory."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_iter import DataError
from train import command

ROOT = Path(__file__).resolve().parents[1]
ENV, PREDICT = str(ROOT / "tools/env.py"), str(ROOT / "tools/predict.py")


@pytest.mark.parametrize("library", ["multiarray_umath", "libmxnet", "cv2.abi3"])
def test_ctrl_c_while_libraries_load_is_one_word(tmp_path, library):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9, 3), np.uint8))
    process = subprocess.Popen(
        [sys.executable, PREDICT, str(tmp_path / "x.png"), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"
    assert process.returncode == 130


def test_a_reader_that_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, ENV], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (141, "")


def test_closed_streams_are_no_error_and_their_numbers_stay_taken(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.full((9, 9, 3), 99, np.uint8))
    call = f"{sys.executable} {PREDICT} x.png --out out <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", call], cwd=tmp_path, timeout=120).returncode == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["x.png", "x_overlay.jpg"]
    call = f"{sys.executable} {PREDICT} nowhere.png 2>&-"
    assert subprocess.run(["sh", "-c", call], cwd=tmp_path, timeout=120).returncode == 2


@pytest.mark.parametrize("value", ["2,1", " 1 , 4"])
def test_mxnet_loads_with_a_list_of_thread_counts(tmp_path, value):
    """MXNet alone would end; test_runtime.py checks which of the numbers counts."""
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9, 3), np.uint8))
    run = subprocess.run(
        [sys.executable, PREDICT, "x.png"], cwd=tmp_path, timeout=120, capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": value},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("variable", "value", "code", "said"),
    [("PYTHONWARNINGS", "error", 0, ""), ("PYTHONOPTIMIZE", "2", 2, "error: python -OO")],
)
def test_pythons_own_switches(tmp_path, variable, value, code, said):
    """Warnings as errors do no harm; python -OO, which strips docstrings, is refused."""
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9, 3), np.uint8))
    run = subprocess.run(
        [sys.executable, PREDICT, "x.png"], cwd=tmp_path, timeout=120, capture_output=True,
        text=True, env=os.environ | {variable: value},
    )  # fmt: skip
    assert (run.returncode, run.stderr[: len(said)]) == (code, said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "error: there is not enough memory: \n"),
        (RuntimeError("bad_alloc\nStack trace"), "error: there is not enough memory: bad_alloc\n"),
        (
            RuntimeError("Traceback (most recent call last):\n  File x\nMXNetError: bad_alloc"),
            "error: there is not enough memory: MXNetError: bad_alloc\n",
        ),
        (DataError("x.png: bad"), "error: x.png: bad\n"),
        (OSError(28, "No space left on device", "y"), "error: y: No space left on device\n"),
    ],
)
def test_an_obstacle_is_one_line(capsys, error, said):
    def main(argv):
        raise error

    assert command.command(main)([]) == 2
    assert capsys.readouterr().err == said


def test_the_report_is_json_for_a_program(tmp_path):
    run = subprocess.run([sys.executable, ENV, "--json"], capture_output=True, check=True)
    assert re.match(r"\d+\.\d+", json.loads(run.stdout)["python"]["version"])


@pytest.mark.parametrize(
    ("tool", "limit"), [("predict", 700), ("evaluate", 700), ("quantize", 1100), ("serve", 1100)]
)
def test_too_little_memory_for_mxnet_is_said_before_it_loads(tmp_path, tool, limit):
    """MXNet would abort or crash by SIGSEGV."""
    options = {
        "predict": [str(tmp_path / "x.png")],
        "evaluate": ["--model", "models/camvid", "--data-root", str(tmp_path)],
        "quantize": ["--model", "models/camvid", "--out", str(tmp_path / "q")],
        "serve": [],
    }[tool]
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, str(ROOT / f"tools/{tool}.py"), *options], cwd=ROOT, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20)),
        capture_output=True, text=True,
    )  # fmt: skip
    said = f"error: this process may have {limit} MB of address space (ulimit -v); MXNet needs"
    assert (done.returncode, done.stderr[: len(said)]) == (2, said)
    assert done.stderr.count("\n") == 1


def test_results_are_written_before_a_reader_leaves(tmp_path):
    for folder in ("truth", "predicted"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "x.png"), np.zeros((9, 9), np.uint8))
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "tools/evaluate.py"), "--dataset", "camvid",
            "--ground-truth", "truth", "--predictions", "predicted", "--json", "scores.json",
        ],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (141, "")
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 1


def test_curves_without_a_writable_temporary_folder_are_one_sentence(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text('{"iteration": 1, "loss": 2.5}\n')
    (tmp_path / "home").touch()  # a file: not even root can write below it
    code = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
        "from tools.report import main\n"
        "sys.exit(main(['curves', 'run', '--out', 'curves.png']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "temporary directory" in last
    assert not (tmp_path / "curves.png").exists()
