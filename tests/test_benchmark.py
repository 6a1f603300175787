"""The benchmark command, its rows, and the benchmark of data on a few frames."""

import json
import os
import subprocess
import sys

import pytest

from tools import benchmark
from tools.bench import data as bench_data
from tools.bench import measuring
from tools.bench import predict as bench_predict
from tools.bench import train as bench_train
from train import machine


def test_measures_take_turns_and_ratios_are_run_by_run():
    calls = []
    results = measuring.in_turn(
        {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}, 3
    )
    assert calls == list("ababab")
    assert results == {"a": [1, 3, 5], "b": [2, 4, 6]}
    row = measuring.row("b", "s", [2.0, 9.0, 4.0], "a", [1.0, 3.0, 1.0])
    assert row == {
        "name": "b", "value": 4.0, "unit": "s", "ratio_to": "a", "ratio": 3.0, "runs": 3
    }  # fmt: skip
    assert measuring.row("a", "s", [1.0])["ratio"] is None


def test_peak_memory_is_the_process_own():
    """The peak of a process does not include the memory of the process that started it."""
    held = bytearray(os.urandom(1)) * 400_000_000
    code = (
        "import train.machine as m; small = m.peak_memory(); b = bytearray(2**28);"
        "b[::4096] = bytes(len(b[::4096])); print(small, m.peak_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=benchmark.Path(benchmark.__file__).parents[1],
    )  # fmt: skip
    del held
    small, large = map(float, done.stdout.split())
    assert small < 200
    assert 250 < large - small < 300


def test_rows_are_printed_whole_and_written(tmp_path, monkeypatch, capsys):
    name = "data_prepared_jpeg_544_2threads_with_a_name_that_is_longer_than_a_narrow_table"
    rows = [measuring.row(name, "samples/s", [12.5, 2.0, 4.0])]
    monkeypatch.setattr(bench_data, "rows", lambda runs: rows[:runs])
    assert benchmark.main(["data", "--runs", "1", "--json", str(tmp_path / "rows.json")]) == 0
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written == [{**rows[0], "processor": machine.processor()}]
    printed = capsys.readouterr()
    assert name in printed.out and f"{name}: 4 samples/s" in printed.err


def test_sizes_and_cases_are_for_prediction(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench_predict, "rows", lambda **options: asked.append(options) or [])
    options = ["--sizes", "544,96x128", "--cases", "mxnet_int8,openvino_int8"]
    assert benchmark.main(["predict", *options]) == 0
    cases = ["mxnet_int8", "openvino_int8"]
    assert asked == [{"runs": 3, "sizes": [(544, 544), (96, 128)], "cases": cases}]
    assert benchmark.main(["predict", "--sizes", "544x"]) == 2
    assert "--sizes 544,: expected HEIGHT,WIDTH" in capsys.readouterr().err
    assert benchmark.main(["data", "--sizes", "100"]) == 2
    assert "--sizes 100x100: expected some of 544, 880" in capsys.readouterr().err
    assert benchmark.main(["crf", *options]) == 2
    assert "--cases is an option of predict, not of crf" in capsys.readouterr().err


@pytest.mark.slow
def test_training_is_measured_beside_its_bare_loop():
    case = bench_train.Case("toy", "toy", bench_train.TOY, 1, 2, (128, 256))
    rows = {row["name"]: row for row in bench_train.rows(runs=1, cases=[case])}
    name = f"toy_1contexts_{machine.allowed_cores()}threads"
    whole, bare = rows[f"train_iterations_{name}"], rows[f"train_bare_{name}"]
    assert whole["ratio_to"] == bare["name"]
    assert whole["ratio"] == whole["value"] / bare["value"]
    assert rows[f"train_samples_{name}"]["value"] == 4 * whole["value"]
    assert 0 < rows[f"train_outside_{name}"]["value"] < 100
    assert 250 < rows[f"train_peak_memory_{name}"]["value"] < 600


@pytest.mark.slow
def test_data_measures_every_mode():
    measured = bench_data.rows(runs=1, frames=2, seconds=0.2)
    rows = {row["name"]: row for row in measured}
    naive = "data_naive_544_2processes"
    for mode in ("direct", "prepared_png", "prepared_jpeg", "cached"):
        row = rows[f"data_{mode}_544_2threads"]
        assert row["ratio_to"] == naive
        assert row["ratio"] == row["value"] / rows[naive]["value"]
        assert 50 < rows[f"data_{mode}_544_2threads_memory"]["value"] < 2000
        assert 0 <= rows[f"data_{mode}_544_2threads_growth"]["value"] < 100
