"""A run that is interrupted and resumed ends with the same bits as an unbroken one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import training

from configs.datasets import load_dataset
from train import checkpoint

LAST = "model-0003.params"
SAVED = 75


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = training.write_frames(tmp_path_factory.mktemp("frames"))
    with (root / "tiny.cfg").open("a") as config:
        config.write("class_weights = 1,3,1,1,1,1,1,1,1,1,0.5\n")
    return root


@pytest.fixture(scope="module")
def unbroken(root):
    out = root / "unbroken"
    ended = training.train(root, out)
    assert ended.returncode == 0, ended.stderr
    return training.arrays(out, LAST), training.log(out)


def wait_for(process, out, pattern, known=()):
    """Wait until the run folder has a file that matches and is not known; or for the end."""
    while process.poll() is None:
        names = {file.name for file in out.glob("*")} - set(known)
        if any(re.fullmatch(pattern, name) for name in names):
            return
        time.sleep(0.005)


def finish(root, out, *options):
    ended = training.train(root, out, "--resume", *options)
    assert ended.returncode == 0, ended.stderr
    return training.arrays(out, LAST), training.log(out)


def assert_same(found, expected):
    assert training.same(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_group_saves_and_resuming_gives_the_same_bits(
    root, unbroken, tmp_path, number
):
    process = training.start(root, tmp_path / "out", "--set=solver.checkpoint_every=2")
    wait_for(process, tmp_path / "out", r"iteration-0000002\.params")
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == SAVED, output
    assert "saved" in output
    assert_same(finish(root, tmp_path / "out", "--set=solver.checkpoint_every=2"), unbroken)


@pytest.mark.slow
def test_killed_again_and_again_it_still_ends_with_the_same_bits(root, tmp_path):
    """The run is long enough to be killed four times, however fast the machine is."""
    out, random, last = tmp_path / "out", np.random.default_rng(5), "model-0012.params"
    options = ("--set=solver.epochs=12", "--set=data.val_split=")
    whole = training.train(root, tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr
    options += ("--resume", "--set=solver.checkpoint_every=1")
    killed = 0
    while True:
        before = {file.name for file in out.glob("*.params")}
        process = training.start(root, out, *options)
        wait_for(process, out, r".*\.params", before)
        if killed < 4:
            time.sleep(random.uniform(0, 0.1))
        if killed == 4 or process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed += 1
        for entry in checkpoint.read_manifest(out):
            assert (out / f"{entry['name']}.params").is_file()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert killed >= 2
    assert training.same(training.arrays(out, last), training.arrays(tmp_path / "whole", last))
    assert training.log(out) == training.log(tmp_path / "whole")


@pytest.mark.slow
def test_two_stops_inside_one_epoch_and_one_at_its_end(root, unbroken, tmp_path):
    """The time limit of 0 s ends each start after one iteration; epochs have five."""
    out = tmp_path / "out"
    for _ in range(6):
        ended = training.train(root, out, "--resume", "--time-limit", "0")
        assert ended.returncode == SAVED, ended.stderr
    assert_same(finish(root, out), unbroken)


@pytest.mark.slow
def test_a_batch_in_parts_is_never_left_half_done(root, tmp_path):
    """A run that is stopped after one update and killed in a later one ends with the same bits."""
    parts = ("--set=solver.accumulate=2", "--set=solver.checkpoint_every=1")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert training.train(root, whole, *parts).returncode == 0
    assert training.train(root, out, *parts, "--time-limit", "0").returncode == SAVED
    process = training.start(root, out, *parts, "--resume")
    wait_for(process, out, r"iteration-0000003\.params")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    expected = training.arrays(whole, LAST), training.log(whole)
    assert_same(finish(root, out, *parts), expected)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_and_says_why(root, unbroken, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        ended = training.train(root, out, "--resume", "--time-limit", "0")
        assert ended.returncode == SAVED, ended.stderr
    newest = out / "iteration-0000002.params"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    ended = training.train(root, out, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert "iteration-0000002.params" in ended.stderr
    assert "SHA-256" in ended.stderr
    assert_same((training.arrays(out, LAST), training.log(out)), unbroken)


@pytest.mark.slow
def test_the_comparison_notices_lost_momentum(root, unbroken, tmp_path):
    """The control: without its momentum a resumed run must end with other bits."""
    out = tmp_path / "out"
    training.train(root, out, "--time-limit", "0")
    training.forget_momentum(out)
    assert not training.same(finish(root, out)[0], unbroken[0])


def test_a_changed_config_is_refused_unless_told(root, tmp_path):
    out = tmp_path / "out"
    assert training.train(root, out, "--time-limit", "0").returncode == SAVED
    ended = training.train(root, out, "--resume", "--set=solver.momentum=0.5")
    assert ended.returncode == 2
    assert "solver.momentum: 0.9 -> 0.5" in ended.stderr
    told = ["--resume", "--allow-changes", "--set=solver.momentum=0.5", "--time-limit", "0"]
    assert training.train(root, out, *told).returncode == SAVED
    # A change that is impossible is refused all the same, and changes no file.
    ended = training.train(root, out, *told, "--set=network.width=0.1")
    assert ended.returncode == 2
    assert "conv1_1_3x3_s2_weight is (3, 3, 3, 3), the network has (6, 3, 3, 3)" in ended.stderr
    config, symbol = (out / "config.cfg").read_text(), (out / "model-symbol.json").read_text()
    assert "\nmomentum = 0.5 " in config and "\nwidth = 0.05 " in config
    # A change that keeps the parameters' shapes is accepted, and the graph is written anew.
    assert training.train(root, out, *told, "--set=network.aspp=1,3").returncode == SAVED
    assert (out / "model-symbol.json").read_text() != symbol


def test_changed_data_are_refused_unless_told(tmp_path):
    """An image is removed, which keeps the number of batches; then the class table changes."""
    root, out = training.write_frames(tmp_path / "data"), tmp_path / "out"
    table = root / "mine.yaml"
    table.write_text((training.PROJECT / "configs/datasets/camvid.yaml").read_text())
    options = ("--time-limit", "0", f"--set=data.dataset={table}")
    assert training.train(root, out, *options).returncode == SAVED
    (root / "images/train/19.png").unlink()
    ended = training.train(root, out, "--resume", *options)
    assert ended.returncode == 2
    assert "begun with 20 patches in an epoch, now there are 19" in ended.stderr
    sky, building = "sky, id: 0, train_id: 0", "building, id: 1, train_id: 1"
    text = table.read_text().replace(sky, sky[:-1] + "1").replace(building, building[:-1] + "0")
    table.write_text(text)
    ended = training.train(root, out, "--resume", *options)
    assert ended.returncode == 2
    assert "another configuration: classes of the class table" in ended.stderr
    ended = training.train(root, out, "--resume", "--allow-changes", *options)
    assert ended.returncode == SAVED, ended.stderr
    assert load_dataset(out / "dataset.yaml") == load_dataset(table)


@pytest.mark.parametrize("change, goes_on", [("", True), ("split", False), ("data", False)])
def test_a_validation_goes_on_only_with_the_same_frames(tmp_path, change, goes_on):
    """The checkpoint is made to say that all three frames were scored, without a mistake."""
    root, out = training.write_frames(tmp_path / "data"), tmp_path / "out"
    options = ["--set=solver.epochs=1", "--set=solver.learn_bn_epochs=1"]
    assert training.train(root, out, *options, "--time-limit", "0").returncode == SAVED
    _, _, progress = checkpoint.load_newest(out)
    progress.validated, progress.val_confusion = 3, np.diag([5] * 11).tolist()
    checkpoint.update_newest(out, progress, keep=1)
    if change == "split":
        for kind in ("images", "labels"):
            shutil.copytree(root / kind / "val", root / kind / "other")
        options.append("--set=data.val_split=other")
    elif change == "data":
        (root / "images/train/19.png").unlink()
    ended = training.train(root, out, "--resume", "--allow-changes", *options)
    assert ended.returncode == 0, ended.stderr
    assert (training.log(out)[-1]["val_miou"] == 1) == goes_on


@pytest.mark.slow
def test_a_signal_while_mxnet_loads_saves_too(root, tmp_path):
    out = tmp_path / "out"
    code = (
        "import os, sys, runpy; from train import runtime; contexts = runtime.contexts\n"
        f"def signalled(*a): os.kill(os.getpid(), {int(signal.SIGTERM)}); return contexts(*a)\n"
        "runtime.contexts = signalled; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *training.command(root, out)[1:]]
    ended = subprocess.run(
        command, cwd=training.PROJECT, env=training.environment(), capture_output=True, text=True
    )
    assert ended.returncode == SAVED, ended.stderr
    assert (out / "iteration-0000001.params").is_file()


def test_a_second_job_in_the_folder_is_refused(root, tmp_path):
    out = tmp_path / "out"
    first = training.start(root, out, "--set=solver.epochs=500")
    try:
        wait_for(first, out, r"starts\.jsonl")
        second = training.train(root, out, "--resume", "--set=solver.epochs=500")
        assert second.returncode == 2
        assert "another job" in second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
