"""Training: it learns, keeps the best, and answers mistakes with one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
import training
from tiny_run import make_run

from configs.datasets import load_dataset
from configs.loader import load_config
from configs.schema import Solver
from train import checkpoint
from train.errors import RunError
from train.initial import initial_params
from train.run_dir import RunDir
from train.schedule import Length, learning_rate, server_scheduler
from train.stop import StopWish
from train.trainer import train

LAST = "model-0003.params"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training.write_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def run(root):
    out = root / "run"
    ended = training.train(root, out)
    assert ended.returncode == 0, ended.stderr
    return out


def test_it_learns(root):
    out = root / "longer"
    ended = training.train(root, out, solver__epochs=12, solver__learn_bn_epochs=12)
    assert ended.returncode == 0, ended.stderr
    records = training.log(out)
    losses = [r["loss"] for r in records if "loss" in r]
    scores = [r["val_miou"] for r in records if "val_miou" in r]
    assert losses[-1] < losses[0] / 4
    assert scores[-1] > 0.7  # all one class would be 0.45


def test_it_says_how_it_goes(run):
    records = training.log(run)
    assert len([r for r in records if "val_miou" in r]) == 3
    assert [r["iteration"] for r in records if "loss" in r] == [2, 4, 5, 7, 9, 10, 12, 14, 15]


def test_people_are_told_what_is_trained_how_it_goes_and_what_comes_next(root):
    """The log also names the best epoch. A run that stop_after ended stays ended with --resume."""
    out = root / "still"
    settings = ("--set=solver.lr=0", "--set=solver.stop_after=2", "--set=solver.epochs=9")
    settings += ("--set=solver.learn_bn_epochs=1", "--set=solver.log_every=5")
    ended = training.train(root, out, *settings)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"training tiny in {out}; loading MXNet")
    for part in (
        "ResNet-26, duc, 0.4 M parameters, on cpu(0); about 0.",
        "20 frames, 20 patches of camvid train; 3",
        "9 of 5 iterations, 4 crops of 32x48", f"to {out}", "left 0:00:00 of the epoch",
        "done after 3 epochs: 2 without a better validation mIoU (solver.stop_after)",
        "best: epoch 1, validation mIoU", f"predict.py IMAGES --model {out} --epoch best",
    ):  # fmt: skip
        assert part in ended.stderr, part
    records = [r for r in training.log(out) if "val_iou" in r]
    assert len(records) == 3
    first, second = (100 * r["val_iou"][0] for r in records[:2])
    assert f"sky          {first:5.2f} %\n" in ended.stderr
    assert f"sky          {second:5.2f} % ({second - first:+.2f})\n" in ended.stderr
    assert RunDir(out).best_epoch() == RunDir(out).chosen_epoch("best") == 1
    assert RunDir(out).chosen_epoch() == 3
    again = training.train(root, out, "--resume", *settings)
    assert again.returncode == 0, again.stderr
    assert [r for r in training.log(out) if "val_iou" in r] == records


def test_no_best_epoch_is_known_without_a_validation(tmp_path):
    make_run(tmp_path / "run", epoch=2)
    assert RunDir(tmp_path / "run").chosen_epoch() == 2
    with pytest.raises(RunError, match="none is known as best"):
        RunDir(tmp_path / "run").load_params("best")


def test_learning_rate_is_the_papers_polynomial(run):
    rates = {r["iteration"]: r["lr"] for r in training.log(run) if "lr" in r}
    for iteration, rate in rates.items():  # the log counts iterations from 1, the formula from 0
        assert rate == pytest.approx(0.05 * (1 - (iteration - 1) / 15) ** 0.9)


def test_run_folder_holds_what_prediction_and_repetition_need(run, root):
    names = {file.name for file in run.rglob("*") if file.is_file()}
    assert {"config.cfg", "dataset.yaml", "model-symbol.json", "log.jsonl", "train.log"} <= names
    assert load_config(run / "config.cfg") == load_config(root / "tiny.cfg")
    assert str(root) not in (run / "config.cfg").read_text()
    started = json.loads((run / "starts.jsonl").read_text())
    assert started["seed"] == 0
    assert started["versions"]["numpy"] == np.__version__
    assert len(started["devices"]) == 1
    model = started["processor"].split(" (")[0]
    assert f": {model}\n" in Path("/proc/cpuinfo").read_text()
    code = (
        "import sys, mxnet as mx; m = mx.mod.Module.load(sys.argv[1], 3,"
        " label_names=['seg_loss_label']); m.bind([('data', (1, 3, 40, 56))], for_training=False);"
        "m.init_params(); print(m.get_outputs() is not None)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(run / "model")], capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr


def test_statistics_are_learned_two_epochs_and_then_fixed(run):
    epochs = [training.arrays(run, f"model-{epoch:04d}.params") for epoch in (1, 2, 3)]
    name = "aux:conv1_1_3x3_s2/bn_moving_mean"
    assert not np.array_equal(epochs[0][name], epochs[1][name])
    np.testing.assert_array_equal(epochs[1][name], epochs[2][name])
    weights = "arg:conv1_1_3x3_s2_weight"
    assert not np.array_equal(epochs[1][weights], epochs[2][weights])


@pytest.fixture(scope="module")
def literal(root):
    """A run that learns BN for two epochs and then fixes all of it, with a rate that steps down."""
    out = root / "literal"
    ended = training.train(
        root, out, solver__fixed_bn="all", solver__schedule="step", solver__step_epochs=1
    )
    assert ended.returncode == 0, ended.stderr
    return out


def moved(run, kind, start, end):
    """For the arrays of a kind, the set of answers to: does it differ between two epochs?"""
    first, second = (training.arrays(run, f"model-{epoch:04d}.params") for epoch in (start, end))
    return {not np.array_equal(first[n], second[n]) for n in first if n.endswith(kind)}


@pytest.mark.parametrize("kind", ["_weight", "bn_gamma", "bn_beta", "bn_moving_mean"])
def test_which_arrays_move_in_which_phase(literal, run, kind):
    assert moved(literal, kind, 1, 2) == {True}
    assert moved(literal, kind, 2, 3) == {kind == "_weight"}
    assert moved(run, kind, 2, 3) == {kind != "bn_moving_mean"}  # only statistics are fixed


def test_the_rate_steps_down_after_each_epoch(literal):
    rates = {r["epoch"]: r["lr"] for r in training.log(literal) if "lr" in r}
    assert rates == pytest.approx({1: 0.05, 2: 0.025, 3: 0.0125})


def test_learning_rates_by_hand():
    poly = Solver(lr=0.1, power=0.9)
    rates = [learning_rate(poly, n, Length(10, 5)) for n in (0, 5, 9)]
    assert rates == pytest.approx([0.1, 0.1 * 0.5**0.9, 0.1 * 0.1**0.9])
    step = Solver(lr=0.08, schedule="step", step_epochs=2, step_factor=0.5)
    rates = [learning_rate(step, n, Length(18, 3)) for n in range(18)]
    assert rates == pytest.approx([0.08] * 6 + [0.04] * 6 + [0.02] * 6)
    cosine = Solver(lr=0.2, schedule="cosine")
    rates = [learning_rate(cosine, n, Length(12, 3)) for n in (0, 3, 6, 12)]
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0])
    warm = Solver(lr=0.2, schedule="cosine", warmup=4)
    rates = [learning_rate(warm, n, Length(12, 3)) for n in (0, 1, 3, 4, 8)]
    assert rates == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.1])
    late = Solver(lr=0.08, schedule="step", step_epochs=2, step_factor=0.5, warmup=2)
    rates = [learning_rate(late, n, Length(18, 3)) for n in range(18)]
    assert rates == pytest.approx([0.04] + [0.08] * 5 + [0.04] * 6 + [0.02] * 6)
    # Servers count updates from 1.
    warm_poly = Solver(lr=0.1, power=0.9, warmup=5)
    warming = server_scheduler(warm_poly, Length(18, 3), 1)
    rates = [learning_rate(warm_poly, n, Length(18, 3)) for n in range(4)]
    assert rates == pytest.approx([warming(n + 1) for n in range(4)])
    for solver, ahead in ((poly, 0), (step, 1), (cosine, 0), (warm_poly, 0)):
        servers = server_scheduler(solver, Length(18, 3), 1)
        for n in range(solver.warmup, 17):
            assert servers(n + ahead) == pytest.approx(learning_rate(solver, n, Length(18, 3)))


def test_new_layers_begin_as_the_release_s(root):
    """Xavier(factor_type="in", magnitude=2.34) draws uniformly within its bound."""
    config = load_config(root / "tiny.cfg", ["network.width=0.5"])
    params = initial_params(config, load_dataset(config.data.dataset))[0]
    for name in ("conv5_1_3x3_weight", "conv4_2_1x1_increase_weight", "fc1_camvid_c1_weight"):
        values = params[name].asnumpy()
        bound = np.sqrt(2.34 / np.prod(values.shape[1:]))
        assert 0.999 * bound < np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
        assert np.abs(values.mean()) < 0.02 * bound


def test_class_weights_of_zero_leave_nothing_to_learn_in_any_epoch(root):
    """The graph is built anew when the BN statistics are learnt, after two of three epochs."""
    out, none = root / "weightless", ",".join("0" * 11)
    ended = training.train(root, out, solver__class_weights=none, solver__weight_decay=0)
    assert ended.returncode == 0, ended.stderr
    config = load_config(root / "tiny.cfg")
    start = initial_params(config, load_dataset(config.data.dataset))[0]
    trained = training.arrays(out, LAST)
    for name, value in start.items():
        np.testing.assert_array_equal(trained[f"arg:{name}"], value.asnumpy(), err_msg=name)


def test_another_seed_trains_another_network(run, root):
    out = root / "seed"
    assert training.train(root, out, experiment__seed=1).returncode == 0
    assert not training.same(training.arrays(out, LAST), training.arrays(run, LAST))


def test_only_the_newest_and_the_best_are_kept(root):
    out = root / "pruned"
    ended = training.train(root, out, solver__keep_checkpoints=1, solver__epochs=4)
    assert ended.returncode == 0, ended.stderr
    manifest = checkpoint.read_manifest(out)
    kept = {entry["name"] for entry in manifest}
    scores = [r["val_miou"] for r in training.log(out) if "val_miou" in r]
    assert kept == {"model-0004", f"model-{int(np.argmax(scores)) + 1:04d}"}
    assert {file.stem for file in out.glob("*.params")} == kept
    assert {file.stem for file in out.glob("*.state")} == kept


def test_a_second_training_does_not_touch_a_folder(run, root):
    def contents():
        return {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}

    before = contents()
    ended = training.train(root, run)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "not empty" in ended.stderr
    assert contents() == before


def broken(root, tmp_path):
    """Copy the frames, to break something in them."""
    for kind in ("images", "labels"):
        shutil.copytree(root / kind, tmp_path / kind)
    shutil.copy(root / "tiny.cfg", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        ("no root", ["no such data folder", "CamVid"]),
        ("no label", ["images/train/04.png", "no label"]),
        ("value", ["labels/train/04.png", "77"]),
        ("size", ["labels/train/04.png", "20x10", "56x40"]),
        ("truncated", ["images/train/04.png", "truncated"]),
        ("key", ["solver", "learning_rate"]),
        ("batch", ["batch_size 4", "3 devices"]),
        ("init", ["nowhere", "no such"]),
        ("dilation", ["biger", "did you mean bigger"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(root, tmp_path, damage, parts):
    data = broken(root, tmp_path)
    options = []
    if damage == "no root":
        shutil.rmtree(data / "images")
        data.joinpath("images").write_text("")
        options = ["--data-root", str(data / "nowhere")]
    elif damage == "no label":
        (data / "labels/train/04.png").unlink()
    elif damage == "value":
        cv2.imwrite(str(data / "labels/train/04.png"), np.full((40, 56), 77, np.uint8))
    elif damage == "size":
        cv2.imwrite(str(data / "labels/train/04.png"), np.zeros((10, 20), np.uint8))
    elif damage == "truncated":
        image = data / "images/train/04.png"
        image.write_bytes(image.read_bytes()[:-100])
    elif damage == "key":
        options = ["--set", "solver.learning_rate=1"]
    elif damage == "batch":
        options = ["--cpus", "3"]
    elif damage == "init":
        options = ["--set", f"solver.init_from={tmp_path}/nowhere"]
    elif damage == "dilation":
        options = ["--set", "network.dilation=biger"]
    ended = training.train(data, tmp_path / "out", *options)
    assert ended.returncode == 2, ended.stderr
    error = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    for part in parts:
        assert part in error[0]
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("out/*.params"))
    if damage not in ("value", "size", "truncated"):  # these may show after some iterations
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there_before", [False, True])
def test_a_start_that_fails_leaves_the_corrected_command_free(root, tmp_path, there_before):
    data, out = broken(root, tmp_path), tmp_path / "out"
    if there_before:
        out.mkdir()
    for file in (data / "labels/train").iterdir():
        cv2.imwrite(str(file), np.full((40, 56), 77, np.uint8))
    ended = training.train(data, out)
    assert ended.returncode == 2 and "77" in ended.stderr
    assert out.exists() == there_before and not list(tmp_path.glob("out/*"))
    (data / "labels/train").rename(tmp_path / "wrong")
    shutil.copytree(root / "labels/train", data / "labels/train")
    ended = training.train(data, out, "--time-limit", "0")
    assert ended.returncode == 75, ended.stderr


def test_a_folder_with_the_users_own_class_table_is_refused_and_kept(root, tmp_path):
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "dataset.yaml"
    own.write_text("classes: [road]\n")
    ended = training.train(root, tmp_path / "out")
    assert ended.returncode == 2 and "the folder is not empty" in ended.stderr
    assert own.read_text() == "classes: [road]\n"
    assert list(own.parent.iterdir()) == [own]


def test_what_was_killed_before_it_learnt_does_not_refuse_the_next_start(run, root, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("SHA256SUMS", "dataset.yaml", "model-symbol.json", "config.cfg", "train.log"):
        shutil.copy(run / name, out)
    (out / ".lock").touch()
    (out / ".images-abcd_123.part.json").write_text('{"half')
    ended = training.train(root, out, "--time-limit", "0", "--set=solver.momentum=0.5")
    assert ended.returncode == 75, ended.stderr
    assert "\nmomentum = 0.5 " in (out / "config.cfg").read_text()


def test_the_end_of_an_epoch_saves_once(root, tmp_path, monkeypatch):
    """Even if checkpoint_every divides the epoch."""
    saved, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: (saved.append(a[1]), save(*a))[1])
    settings = ["solver.checkpoint_every=1", "solver.epochs=1", "solver.learn_bn_epochs=1"]
    config = load_config(root / "tiny.cfg", settings)
    dataset, devices = load_dataset(config.data.dataset), [mx.cpu()]
    with StopWish(None) as stop:
        assert train(config, dataset, root, tmp_path / "out", devices, stop=stop) == 0
    assert saved and len(saved) == len(set(saved))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(root, tmp_path):
    tmp_path.chmod(0o500)
    ended = training.train(root, tmp_path / "out")
    assert ended.returncode == 2
    assert "Permission denied" in ended.stderr


def test_a_loss_that_explodes_names_iteration_rate_and_files(root, tmp_path):
    ended = training.train(root, tmp_path / "out", solver__lr=1e6, solver__clip_gradient=0)
    assert ended.returncode == 2
    for part in ("the loss is", "iteration", "learning rate", "lower solver.lr", "labels/train/"):
        assert part in ended.stderr


def test_random_weights_under_fixed_statistics_are_told_apart(root, tmp_path):
    out = tmp_path / "out"
    fixed = {"solver__learn_bn_epochs": 0, "solver__lr": 1e6, "solver__clip_gradient": 0}
    ended = training.train(root, out, **fixed)
    assert ended.returncode == 2 and not out.exists()
    for way in ("solver.init_from=FILE", "solver.learn_bn_epochs=N", "solver.init_from=none"):
        assert f"--set {way}" in ended.stderr
    ended = training.train(root, out, solver__init_from="none", **fixed)
    assert ended.returncode == 2
    assert "name trained ones in solver.init_from, or set solver.learn_bn_epochs" in ended.stderr


def test_a_run_begins_from_the_parameters_of_another(run, root, tmp_path):
    out = tmp_path / "out"
    ended = training.train(root, out, solver__init_from=run, solver__lr=0, solver__epochs=2,
                           solver__learn_bn_epochs=0)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "loaded" in ended.stderr
    assert ended.stderr.count("the batch-norm statistics") == 1  # do they match the images?
    trained = training.arrays(run, LAST)
    assert training.same(training.arrays(out, "model-0002.params"), trained)


def test_a_damaged_run_does_not_start_another(run, root, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    file = tmp_path / "copy" / LAST
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    config = load_config(root / "tiny.cfg", [f"solver.init_from={tmp_path}/copy"])
    with pytest.raises(RunError, match="damaged"):
        initial_params(config, load_dataset(config.data.dataset))


def test_what_is_taken_over_is_listed(run, root, tmp_path, caplog):
    named = mx.nd.load(str(run / LAST))
    stem, count = named.pop("arg:conv1_1_3x3_s2_weight"), len(named)
    named["arg:stem"] = stem
    head = next(name for name in named if name.startswith("arg:fc1_") and "weight" in name)
    named[head] = named[head][1:]  # as if of fewer classes
    mx.nd.save(str(tmp_path / "x.params"), named)
    config = load_config(root / "tiny.cfg", [f"solver.init_from={tmp_path}/x.params"])
    with caplog.at_level("INFO", "train"):
        arg_params, _ = initial_params(config, load_dataset(config.data.dataset))
    said = [record.getMessage() for record in caplog.records]
    assert said[0].endswith(f"{count - 1} parameters loaded, 2 initialised, 2 skipped")
    assert f"  initialised: {head[4:]}" in said
    assert "  initialised: conv1_1_3x3_s2_weight" in said
    assert "  skipped: stem is not in this network" in said
    there, here = named[head].shape, arg_params[head[4:]].shape
    assert f"  skipped: {head[4:]} is {there} there, {here} here" in said
    kept = "conv5_1_3x3_weight"
    np.testing.assert_array_equal(arg_params[kept].asnumpy(), named[f"arg:{kept}"].asnumpy())
