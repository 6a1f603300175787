"""How commands begin and end, in real processes: signals, closed streams, little memory."""

import json
import os
import re
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


@pytest.mark.parametrize("value", ["2,1", " 1 , 4", "1"])
def test_a_list_of_thread_counts_is_read_as_openmp_reads_it(tmp_path, value):
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
