"""Memory: estimates against measured peaks, free memory, and refusals that say what would fit."""

import dataclasses
import re
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
import training
from tiny_run import make_run

from configs.datasets import load_dataset
from configs.loader import load_config
from symbols.losses import LOSSES
from tools import quantize, summary
from tools.bench import memory as bench
from tools.inference.averaging import Averager
from tools.inference.predictor import load
from train import memory
from train.errors import RunError
from train.network import build_symbol, param_shapes

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("train", "toy", "data.crop_hw=64,96"),
        ("train", "toy", "data.crop_hw=192,320"),
        ("train", "camvid", "data.crop_hw=192,320"),  # the stem and res2 are frozen
        ("predict", "toy", "1024", "1280"),
    ],
    ids=" ".join,
)
def test_a_process_takes_what_was_estimated(command):
    found = bench.measure(command)
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)


def test_frozen_layers_have_no_gradients():
    """The graph is made by hand: a has 4 x 2 x 4 outputs, b has 5 x 2 x 2."""
    body = mx.sym.Convolution(
        mx.sym.Variable("data"), num_filter=4, kernel=(1, 1), stride=(8, 8), name="a"
    )
    body = mx.sym.Convolution(body, num_filter=5, kernel=(1, 2), stride=(1, 2), name="b")
    weights = 4 * 3 + 4 + 5 * 4 * 2 + 5
    fixed = memory.PROCESS + 4 * (memory.COPIES + memory.REARRANGED) * weights
    outputs = {"a": 1 * 4 * 2 * 4, "b": 1 * 5 * 2 * 2}
    for freeze, count in (((), 2), (("a_*",), 1), (("*",), None)):
        found = memory.training_bytes(body, (16, 32), 1, freeze=freeze) - fixed
        if count is None:
            assert found == 4 * (outputs["a"] + outputs["b"])
        else:
            assert found == 4 * (count * outputs["a"] + 2 * outputs["b"])


def test_every_loss_has_an_estimate():
    """A loss with its own formula keeps more maps of scores than SoftmaxOutput (fewer than 25)."""
    dataset, found = load_dataset("cityscapes"), {}
    for loss in (*LOSSES, "+".join(LOSSES)):
        config = load_config(ROOT / "configs/toy.cfg", [f"solver.loss={loss}"])
        found[loss] = memory.TrainingMemory(config, dataset).total()
    scores = 4 * 19 * 4 * (96 // 2) * (192 // 2)  # bytes of the scores of the batch's cells
    for loss in set(found) - {"cross_entropy"}:
        assert 0 < found[loss] - found["cross_entropy"] < 25 * scores


def cgroup(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in values.items():
        (folder / name.replace("__", ".")).write_text(str(text))


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_cgroup_counts_and_cached_files_are_free(tmp_path, version):
    membership = tmp_path / "membership"
    if version == 2:
        membership.write_text("0::/job/step\n")
        base, limit, used, cached = tmp_path, "memory__max", "memory__current", "inactive_file"
        cgroup(base / "job", **{limit: "max", used: 10**9, "memory__stat": ""})
    else:
        membership.write_text("4:memory:/job/step\n2:cpu:/job/step\n")
        base, limit, used = tmp_path / "memory", "memory__limit_in_bytes", "memory__usage_in_bytes"
        cached = "total_inactive_file"
    stat = f"anon 5\n{cached} 2000000\nfile 7\n"
    cgroup(base / "job/step", **{limit: 5_000_000, used: 4_000_000, "memory__stat": stat})
    assert memory.free_bytes(mx.cpu(), tmp_path, membership) == 3_000_000
    assert memory.free_bytes(mx.cpu(), tmp_path, tmp_path / "none") > 3_000_000


def test_what_would_fit_is_named_and_does_fit(monkeypatch):
    config = load_config(ROOT / "configs/duc_hdc.cfg", ["solver.batch_size=12"])
    dataset = load_dataset(config.data.dataset)
    need = memory.check_training(config, dataset, [mx.cpu()], None, ignore=True)
    monkeypatch.setattr(memory, "free_bytes", lambda context: need // 2)
    with pytest.raises(RunError, match=r"needs about \d+\.\d GB, and the machine has") as refusal:
        memory.check_training(config, dataset, [mx.cpu()], None)
    parts = int(re.search(r"solver\.accumulate=(\d+)", str(refusal.value))[1])
    solver = dataclasses.replace(config.solver, accumulate=parts)
    fits = dataclasses.replace(config, solver=solver)
    assert memory.check_training(fits, dataset, [mx.cpu()], None) <= need // 2

    monkeypatch.setattr(memory, "free_bytes", lambda context: 4_500_000_000)
    with pytest.raises(RunError, match=r"smaller crops fit: .*accumulate=12") as refusal:
        memory.check_training(config, dataset, [mx.cpu()], None)
    sides = re.search(r"crop_hw=(\d+),(\d+)", str(refusal.value)).groups()
    data = dataclasses.replace(config.data, crop_hw=tuple(map(int, sides)))
    solver = dataclasses.replace(config.solver, accumulate=12)
    fits = dataclasses.replace(config, data=data, solver=solver)
    assert memory.check_training(fits, dataset, [mx.cpu()], None) <= 4_500_000_000

    monkeypatch.setattr(memory, "free_bytes", lambda context: 10**8)
    with pytest.raises(RunError, match="no size of crop fits"):
        memory.check_training(config, dataset, [mx.cpu()], None)
    assert memory.check_training(config, dataset, [mx.cpu()], None, ignore=True) == need


def test_the_plan_of_a_gpu_is_linear_in_the_batch():
    config = load_config(ROOT / "configs/toy.cfg")
    symbol = build_symbol(config, load_dataset(config.data.dataset))
    one, four = (memory.planned_bytes(symbol, (n, 3, 128, 128), "write") for n in (1, 4))
    assert 3 < four / one < 5


def test_too_large_a_crop_is_refused_before_anything_is_written(tmp_path):
    root = training.write_frames(tmp_path / "frames", train=4, val=1)
    ended = training.train(root, tmp_path / "out", "--set=data.crop_hw=32768,32768")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "training needs about" in ended.stderr and "GB free" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_the_tightest_gpu_counts(monkeypatch):
    """A stand-in for MXNet's query gives each GPU's (free, total) bytes."""
    told = {0: (9 * 10**9, 16 * 10**9), 1: (10**9, 16 * 10**9)}
    monkeypatch.setattr(mx.context, "gpu_memory_info", told.get)
    config = load_config(ROOT / "configs/toy.cfg", ["data.crop_hw=256,512"])
    dataset = load_dataset(config.data.dataset)
    with pytest.raises(RunError, match=r"about (1\.\d) GB, and GPU 1 has 1\.0 GB free"):
        memory.check_training(config, dataset, [mx.gpu(0), mx.gpu(1)], None)
    need = memory.check_training(config, dataset, [mx.gpu(0)], None)
    symbol = build_symbol(config, dataset)
    plan = memory.planned_bytes(symbol, (4, 3, 256, 512), "write")
    weights = sum(np.prod(shape) for shape in param_shapes(symbol, 8)[0].values())
    assert need == memory.CUDNN + plan + 4 * 4 * weights


def test_an_image_that_is_too_large_is_refused_before_it_is_computed(tmp_path, monkeypatch):
    segmenter = load(make_run(tmp_path / "run").path).segmenter
    image = np.zeros((64, 96, 3), np.uint8)
    need = memory.predicting_bytes(segmenter.symbol, (64, 96))
    monkeypatch.setattr(memory, "free_bytes", lambda context: need)
    segmenter.check_memory = True
    segmenter.labels(image)
    with pytest.raises(RunError, match=r"image of 104x64 needs .* tiles \(--tile\)"):
        segmenter.labels(np.zeros((64, 97, 3), np.uint8))  # padded to 104
    Averager(segmenter, tile_hw=(64, 96), overlap=32).labels(np.zeros((640, 970, 3), np.uint8))
    segmenter.check_memory = False
    segmenter.labels(np.zeros((64, 97, 3), np.uint8))


def test_calibration_is_refused_before_it_begins(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run").path
    (tmp_path / "images").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), np.zeros((61, 97, 3), np.uint8))
    monkeypatch.setattr(memory, "free_bytes", lambda context: 10**8)
    command = ["--model", run, "--out", tmp_path / "int8", "--images", tmp_path / "images"]
    assert quantize.main([str(part) for part in command]) == 2
    said = capsys.readouterr().err
    assert "calibration on images of 97x61 needs about 0.2 GB" in said
    assert "calibrate on smaller ones; --ignore-memory" in said
    assert not (tmp_path / "int8").exists()


def test_summary_says_what_training_will(capsys):
    config_file = ROOT / "configs/toy.cfg"
    options = ["--set", "data.crop_hw=512,1024", "--frame", "512,2048"]
    assert summary.main(["--config", str(config_file), *options]) == 0
    config = load_config(config_file, ["data.crop_hw=512,1024"])
    dataset = load_dataset(config.data.dataset)
    need = memory.check_training(config, dataset, [mx.cpu()], (512, 2048), ignore=True)
    share = need - memory.check_training(config, dataset, [mx.cpu()], None, ignore=True)
    said = f"about {need / 1e9:.1f} GB, {share / 1e9:.1f} GB of them to validate frames of 512,2048"
    assert said in capsys.readouterr().out
