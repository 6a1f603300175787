"""Failures that end a run: full disks, truncated files, missing data, too high learning rates."""

import os
import pickle
import re
import resource
import shutil
import subprocess
import time

import mxnet as mx
import pytest
import training

from configs.schema import Config
from data_iter import DataError
from train import checkpoint
from train.atomic import digest
from train.errors import RunError
from train.health import explained

LAST = "model-0003.params"
SAVED = 75
EVERY = "--set=solver.checkpoint_every=1"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training.write_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def unbroken(root):
    ended = training.train(root, root / "unbroken")
    assert ended.returncode == 0, ended.stderr
    return training.arrays(root / "unbroken", LAST), training.log(root / "unbroken")


def assert_resumes(root, out, unbroken, *options):
    ended = training.train(root, out, "--resume", *options)
    assert ended.returncode == 0, ended.stderr
    assert training.same(training.arrays(out, LAST), unbroken[0])
    assert training.log(out) == unbroken[1]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_one_checkpoint_at_most(root, unbroken, small_disk):
    out = small_disk / "out"
    keep_all = (EVERY, "--set=solver.keep_checkpoints=1000")
    ended = training.train(root, out, *keep_all)
    assert ended.returncode == 2, ended.stderr
    sentences = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, ended.stderr
    assert "disk" in sentences[0] or "room" in sentences[0]
    assert "unharmed" in sentences[0]
    entries = checkpoint.read_manifest(out)
    assert entries
    checkpoint.load_newest(out)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert_resumes(root, out, unbroken, *keep_all)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [1, 40, 2000])
def test_a_file_cut_short_is_noticed_and_the_one_before_stays(root, unbroken, tmp_path, missing):
    """mx.nd.save does not report a few missing bytes, so files are read back."""
    out = tmp_path / "out"
    assert training.train(root, out, "--time-limit", "0").returncode == SAVED
    size = (out / "iteration-0000001.params").stat().st_size - missing

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    ended = subprocess.run(
        training.command(root, out, "--resume"), preexec_fn=limit, cwd=root,
        env=training.environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "model-0001.params: could not be written whole" in ended.stderr
    assert not (out / "model-0001.params").exists()
    assert not list(out.glob(".model*"))
    assert checkpoint.load_newest(out)[2].batch == 1
    assert_resumes(root, out, unbroken)


@pytest.mark.slow
def test_a_vanished_data_folder_is_named_and_what_was_learnt_is_saved(tmp_path):
    root, out = training.write_frames(tmp_path / "data"), tmp_path / "out"
    settings = (EVERY, "--set=solver.epochs=5000", "--set=data.val_split=")
    process = training.start(root, out, *settings)
    while process.poll() is None and not checkpoint.read_manifest(out):
        time.sleep(0.05)
    root.rename(tmp_path / "elsewhere")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert f"{root}: the data folder has vanished" in output
    reached = checkpoint.load_newest(out)[2]
    (tmp_path / "elsewhere").rename(root)
    ended = training.train(root, out, *settings, "--resume", "--time-limit", "0")
    assert ended.returncode == SAVED, ended.stderr
    after = checkpoint.load_newest(out)[2]
    assert (after.epoch - reached.epoch) * after.batches + after.batch - reached.batch == 1


@pytest.mark.slow
def test_a_lost_network_stops_the_run_with_rate_and_files(root, tmp_path):
    ended = training.train(root, tmp_path / "out", solver__lr="1e30", solver__clip_gradient=0)
    assert ended.returncode == 2, ended.stderr
    sentence = ended.stderr.splitlines()[-1]
    assert "the loss is nan at iteration" in sentence
    assert re.search(r"learning rate [\d.]+e\+(29|30)", sentence)
    assert str(root / "labels/train") in sentence


@pytest.mark.slow
def test_a_checkpoint_of_a_lost_network_is_named_and_can_be_passed_over(root, unbroken, tmp_path):
    out = tmp_path / "out"
    assert training.train(root, out, "--time-limit", "0").returncode == SAVED
    wrong = (EVERY, "--set=solver.lr=1e30", "--set=solver.clip_gradient=0")
    ended = training.train(root, out, "--resume", "--allow-changes", *wrong)
    assert ended.returncode == 2, ended.stderr
    assert "iteration-0000002.params is lost already: remove it" in ended.stderr
    again = training.train(root, out, "--resume", "--allow-changes")  # from diverged values
    assert "iteration-0000002.params is lost already: remove it" in again.stderr
    (out / "iteration-0000002.params").unlink()
    assert_resumes(root, out, unbroken, "--allow-changes")


@pytest.mark.slow
def test_a_job_killed_while_it_begins_can_be_resumed(root, unbroken, tmp_path):
    """The folder has all that can exist before the first checkpoint, even half a file."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("dataset.yaml", "SHA256SUMS"):
        shutil.copy(root / "unbroken" / name, out)
    (out / ".model-symbol-abcd_123.part.json").write_text('{"half')
    (out / ".lock").touch()
    assert_resumes(root, out, unbroken)
    assert not list(out.glob(".model*"))


# ---- without starting a process


def test_reading_a_checkpoint_runs_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    arrays = {"arg:a": mx.nd.ones(3)}
    checkpoint.save(tmp_path, "model-0001", arrays, {}, checkpoint.Progress(), 3)
    manifest = checkpoint.read_manifest(tmp_path)
    for suffix in checkpoint.SUFFIXES:
        file = tmp_path / f"model-0001{suffix}"
        file.write_bytes(pickle.dumps(Bomb()))
        manifest[0]["files"][suffix] = {
            "bytes": file.stat().st_size, "sha256": digest(file)
        }  # fmt: skip
    checkpoint.write_manifest(tmp_path, manifest)
    with pytest.raises(RunError, match="no whole checkpoint"):
        checkpoint.load_newest(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_the_newest_whole_checkpoint_is_taken(tmp_path, caplog, damage):
    for number in (1, 2, 3):
        arrays = {"arg:a": mx.nd.full(3, number)}
        progress = checkpoint.Progress(epoch=number)
        checkpoint.save(tmp_path, f"model-000{number}", arrays, {}, progress, 3)
    newest = tmp_path / "model-0003.params"
    content = bytearray(newest.read_bytes())
    content[-2] ^= 1
    newest.write_bytes(content[:-9] if damage == "cut" else content)
    if damage == "remove":
        newest.unlink()
    params, _, progress = checkpoint.load_newest(tmp_path)
    assert progress.epoch == params["arg:a"].asnumpy()[0] == 2
    assert "model-0003.params" in caplog.text and "the checkpoint before it" in caplog.text


@pytest.mark.parametrize(
    "text", ["", '[{"name"', "{}", '["a"]', '[{"name": "a", "files": {}, "progress": {}}]',
             '[{"name": "a", "files": {}, "progress": {"eqoch": 1}}]'],
)  # fmt: skip
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    checkpoint.save(tmp_path, "model-0001", {"arg:a": mx.nd.ones(3)}, {}, checkpoint.Progress(), 3)
    (tmp_path / checkpoint.MANIFEST).write_text(text)
    with pytest.raises(RunError, match=r"checkpoints\.json: damaged"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.slow
def test_a_run_whose_manifest_is_gone_does_not_begin_anew(root, tmp_path):
    """A run that was killed during its first save, with an empty manifest, does begin anew."""
    out, stop = tmp_path / "out", ("--time-limit", "0")
    assert training.train(root, out, *stop).returncode == SAVED
    manifest, model = out / checkpoint.MANIFEST, out / "iteration-0000001.params"
    content = model.read_bytes()
    manifest.rename(tmp_path / "lost")
    ended = training.train(root, out, "--resume", *stop)
    assert ended.returncode == 2
    assert f"{manifest} is missing, which says where {model.name} stands" in ended.stderr
    assert model.read_bytes() == content
    manifest.write_text("[]")
    assert training.train(root, out, "--resume", *stop).returncode == SAVED
    assert checkpoint.load_newest(out)[2].batch == 1


def test_what_a_killed_job_had_half_saved_is_removed(tmp_path):
    left = tmp_path / "iteration-0000003.params"
    left.write_bytes(b"without an entry")
    mine = tmp_path / "model-0009.params"
    mine.write_bytes(b"put here by hand")
    for name in ("iteration-0000005", "model-0001"):
        checkpoint.begin(tmp_path)
        checkpoint.save(tmp_path, name, {"arg:a": mx.nd.ones(3)}, {}, checkpoint.Progress(), 3)
    kept = {file.name for file in tmp_path.glob("*.params")}
    assert kept == {"model-0001.params", "model-0009.params"}


def test_the_best_is_never_pruned(tmp_path):
    for number in range(1, 7):
        progress = checkpoint.Progress(best="model-0002" if number > 1 else None)
        arrays = {"arg:a": mx.nd.ones(number)}
        checkpoint.save(tmp_path, f"model-000{number}", arrays, {}, progress, 2)
    kept = {file.name for file in tmp_path.glob("*.params")}
    assert kept == {"model-0002.params", "model-0005.params", "model-0006.params"}


@pytest.mark.parametrize(
    "error, expected",
    [
        (
            mx.base.MXNetError("cudaMalloc retry failed: out of memory"),
            r"out of memory .*: lower solver\.batch_size \(12\) or data\.crop_hw \(544,544\)",
        ),
        (OSError(28, "No space left on device", "log.jsonl"), "log.jsonl: no room to write it"),
    ],
)
def test_what_runs_out_is_said_in_one_sentence(tmp_path, error, expected):
    with pytest.raises(RunError, match=expected), explained(Config(), tmp_path, tmp_path):
        raise error


@pytest.mark.parametrize(
    "error", [mx.base.MXNetError("Operator no_such is not registered"), DataError("broken")]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error), match=str(error)), explained(Config(), tmp_path, tmp_path):
        raise error
