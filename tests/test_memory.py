"""Memory: the estimate beside real peaks, what is free, and the refusal with what would fit."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import pytest
import training

from configs.datasets import load_dataset
from configs.loader import load_config
from train import memory
from train.errors import RunError
from train.network import build_symbol

ROOT = Path(__file__).resolve().parents[1]
PEAK = """
import sys, train.runtime, mxnet as mx
from configs.datasets import load_dataset
from configs.loader import load_config
from tools.bench.measuring import peak_memory
from train.distributed.workers import Workers
from train.initial import initial_params
from train.module import TrainingModule
from train.network import build_symbol
from train.schedule import Length
config = load_config(sys.argv[1], sys.argv[2:])
dataset = load_dataset(config.data.dataset)
symbol = build_symbol(config, dataset, learn_bn=True)
shape = (config.solver.batch_size, 3, *config.data.crop_hw)
shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=shape)[0]))
described = [[mx.io.DataDesc(n, shapes[n])] for n in ("data", "seg_loss_label")]
module = TrainingModule(symbol, [mx.cpu()], *described, config.solver,
    initial_params(config, dataset), {}, Workers("dist_sync"), Length(9, 9), 0, True)
batch = mx.io.DataBatch(*([mx.nd.ones(d[0].shape)] for d in described))
for iteration in range(2):
    module.step(batch, iteration).wait_to_read()
mx.nd.waitall()
print(peak_memory() * 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["64,96", "192,320"])
def test_a_training_takes_what_was_estimated(crop):
    config_file = ROOT / "configs/toy.cfg"
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(config_file), f"data.crop_hw={crop}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    config = load_config(config_file, [f"data.crop_hw={crop}"])
    symbol = build_symbol(config, load_dataset(config.data.dataset), learn_bn=True)
    crops = config.solver.batch_size
    assert memory.training_bytes(symbol, config.data.crop_hw, crops) == pytest.approx(
        float(run.stdout.split()[-1]), rel=0.15
    )


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
