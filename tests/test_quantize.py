"""int8 and bf16 run folders: close to the original, read by predict."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from tiny_run import make_run, noise

from tools import export_onnx, predict, quantize
from tools.inference import precision, quantization
from tools.inference.predictor import load
from tools.inference.run import read_run
from train.errors import RunError
from train.initial import initial_params
from train.run_dir import INFERENCE_SYMBOL, RunDir

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, and a CamVid-like data set whose labels are the run's own predictions."""
    folder = tmp_path_factory.mktemp("quantize")
    run = make_run(folder / "run", width=0.25)
    segmenter = load(run.path).segmenter
    for split, count in (("train", 2), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / "data" / kind / split).mkdir(parents=True)
        for number in range(count):
            image = noise(72, 96, seed=number + 10 * (split == "val"))
            name = f"{split}/{number}.png"
            cv2.imwrite(str(folder / "data" / "images" / name), image[:, :, ::-1])
            cv2.imwrite(str(folder / "data" / "labels" / name), segmenter.labels(image))
    return run.path, folder / "data"


def has_bf16():
    """Tell by the processor's flags whether MXNet can compute in bf16 here."""
    flags = Path("/proc/cpuinfo").read_text().split()
    limit = os.environ.get("DNNL_MAX_CPU_ISA", "AVX512").upper()
    return {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= {*flags} and "AVX512" in limit


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="bf16 in MXNet needs AVX-512")


@pytest.mark.parametrize(
    ("kind", "agree"), [("int8", 0.9), pytest.param("bf16", 0.95, marks=needs_bf16)]
)
def test_a_quantised_folder_predicts_nearly_the_same(made, kind, agree, tmp_path, capsys):
    run, data = made
    out = tmp_path / "out"
    options = ["--precision", kind, "--data-root", data, "--max-loss", 30]
    arguments = ["--model", run, "--out", out, *options]
    assert quantize.main([str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    assert "mIoU before 100.00 %" in printed and "mIoU after" in printed
    operators = (out / INFERENCE_SYMBOL).read_text()
    assert ("quantized" if kind == "int8" else "amp_cast") in operators
    segmenter = load(out).segmenter
    for hw in ((72, 96), (37, 53)):
        image = noise(*hw, seed=5)
        same = segmenter.labels(image) == load(run).segmenter.labels(image)
        assert same.mean() > agree
    image = str(data / "images" / "val" / "0.png")
    assert predict.main([image, "--model", str(out), "--out", str(tmp_path / "p")]) == 0
    assert quantize.main([str(a) for a in arguments]) == 2
    assert "exists already" in capsys.readouterr().err
    arguments = ["--model", out, "--out", tmp_path / "m.onnx"]
    assert export_onnx.main([str(a) for a in arguments]) == 2
    assert "run in MXNet only" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [None, "AVX2"])
def test_bf16_without_avx512_is_refused_in_one_sentence(made, limit, tmp_path):
    """DNNL_MAX_CPU_ISA=AVX2 makes oneDNN ignore AVX-512 on every processor."""
    if limit is None and has_bf16():
        pytest.skip("this processor has bf16")
    folder = tmp_path / "bf16"
    run = quantization.folded(read_run(made[0]))
    quantization.write_inference_run(folder, quantization.to_bf16(run), 3)
    environment = dict(os.environ, **({"DNNL_MAX_CPU_ISA": limit} if limit else {}))
    image = made[1] / "images/val/0.png"
    for call in (
        ["quantize.py", "--model", made[0], "--precision", "bf16", "--out", tmp_path / "out"],
        ["predict.py", image, "--model", folder, "--out", tmp_path / "out"],
    ):
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / call[0], *call[1:]],
            env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if "mkldnn" not in line]
        assert "bf16 in MXNet needs AVX-512 (avx512f avx512bw avx512dq avx512vl)" in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "why"),
    [({"sse4_2", "avx2", "avx512f"}, "lacks avx512bw avx512dq avx512vl"), (set(), "does not use")],
)
def test_both_processor_and_library_are_asked(flags, why, monkeypatch):
    monkeypatch.setattr(precision.machine, "instructions", lambda: flags)
    monkeypatch.setattr(precision, "_computes", lambda: False)
    with pytest.raises(RunError, match=why):
        precision.require_bf16()


def test_a_projections_negative_values_count(made):
    run = quantization.folded(read_run(made[0]))
    block = run.symbol.get_internals()["conv2_1/relu_output"]
    args = {name: run.arg_params[name] for name in block.list_arguments() if name != "data"}
    run = dataclasses.replace(run, symbol=block, arg_params=args)
    data = quantization.segmenter_of(run).network_input(noise(72, 96, seed=9))
    exact, found = (
        quantization.segmenter_of(one).forward(data)
        for one in (run, quantization.to_int8(run, [noise(72, 96)], ()))
    )
    assert np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()) < 0.04  # 0.15 if cut off


def test_layers_can_stay_in_float(made):
    run = quantization.folded(read_run(made[0]))
    images = [noise(64, 64)]
    whole = quantization.to_int8(run, images, ())
    part = quantization.to_int8(run, images, ("fc1_", "conv1_"))
    count = [one.symbol.tojson().count('"quantized": "true"') for one in (whole, part)]
    assert count[0] - count[1] == 5  # two ASPP paths, three convolutions of the stem
    operators = [node["op"] for node in json.loads(whole.symbol.tojson())["nodes"]]
    # Layers exchange integers, except at the image, two ASPP paths and a ReLU for each stage.
    assert operators.count("_contrib_quantize_v2") == 1 + 4
    assert operators.count("_contrib_dequantize") == 2 + 4
    expected = quantization.segmenter_of(run).cell_probabilities(images[0])
    for one in (whole, part):
        cells = quantization.segmenter_of(one).cell_probabilities(images[0])
        assert 0 < np.abs(cells - expected).mean() < 0.02


def test_the_epoch_that_was_asked_for_is_the_one_written(tmp_path):
    run = make_run(tmp_path / "run", epoch=3)
    other = make_run(tmp_path / "other", epoch=2, seed=1)
    run.params_file(2).write_bytes(other.params_file(2).read_bytes())
    out, images = tmp_path / "out", tmp_path / "images"
    for folder in ("ulm", "bonn"):  # two images of one name calibrate like any others
        (images / folder).mkdir(parents=True)
        cv2.imwrite(str(images / folder / "one.png"), noise(64, 64)[:, :, ::-1])
    options = ["--model", run.path, "--epoch", 2, "--images", images, "--out", out]
    assert quantize.main([str(a) for a in options]) == 0
    assert RunDir(out).epochs() == [2]
    expected = quantization.to_int8(
        quantization.folded(read_run(other.path)), [noise(64, 64)], ()
    ).arg_params
    made = RunDir(out).load_params()[0]
    assert all(np.array_equal(made[n].asnumpy(), expected[n].asnumpy()) for n in expected)


def test_training_takes_no_quantised_folder_and_warns_of_other_options(tmp_path, caplog):
    run = make_run(tmp_path / "run", mean_rgb=(1.0, 2.0, 3.0), pool_pad=1)
    config, dataset = run.load()
    start = dataclasses.replace(config.solver, init_from=str(run.path))
    network = dataclasses.replace(config.network, mean_rgb=(4.0, 5.0, 6.0))
    config = dataclasses.replace(config, solver=start, network=network)
    with caplog.at_level("WARNING", "train"):
        initial_params(config, dataset)
    (record,) = caplog.records
    assert "network.mean_rgb: 1.0,2.0,3.0 -> 4.0,5.0,6.0" in record.getMessage()
    assert "pool_pad" not in record.getMessage()
    (run.path / INFERENCE_SYMBOL).write_text("{}")
    with pytest.raises(RunError, match="int8 and bf16 folders can't be trained"):
        initial_params(config, dataset)


def test_what_cannot_be_quantised(made, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    unvalidated = tmp_path / "empty" / "run"
    text = (RunDir(made[0]).path / "config.cfg").read_text()
    shutil.copytree(made[0], unvalidated, ignore=shutil.ignore_patterns("SHA256SUMS"))
    (unvalidated / "config.cfg").write_text(re.sub("val_split = val", "val_split =", text))
    bf16 = (["--data-root", made[1], "--max-loss", "-1", "--precision", "bf16"], "loses more than")
    for options, message in (
        (["--images", tmp_path / "empty"], "no images"),
        ([], "needs --images or --data-root"),
        (["--data-root", tmp_path / "gone"], "gone"),
        (["--data-root", made[1], "--max-loss", "-1"], "loses more than"),
        *([bf16] if has_bf16() else []),
        (["--model", unvalidated, "--data-root", made[1]], "no validation split"),
    ):
        arguments = ["--model", made[0], "--out", tmp_path / "out", *options]
        assert quantize.main([str(a) for a in arguments]) == 2
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


@pytest.mark.slow
def test_memory_stays_over_many_sizes(made):
    run = quantization.folded(read_run(made[0]))
    segmenter = quantization.segmenter_of(quantization.to_int8(run, [noise(64, 64)], ()))
    sizes = np.random.default_rng(0).permutation(225)
    after = []
    for size in sizes:
        segmenter.labels(np.zeros((8 + 8 * (size % 15), 8 + 8 * (size // 15), 3), np.uint8))
        after.append(psutil.Process().memory_info().rss)
    assert after[-1] - after[74] < 12 << 20  # 25 MB and more without a limit on what is kept
