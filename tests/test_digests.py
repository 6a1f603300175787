"""Files are checked when they are read again: damage is reported, never read as content."""

import dataclasses
import errno
import fcntl
import logging
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from tiny_run import make_run, noise

from configs.errors import ConfigError
from data_iter import DataError
from data_iter.datasets import Sample
from data_iter.frames import FileFrames
from data_iter.sealed import seal, unseal
from train import RunError, atomic, checkpoint, digests

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_sealed_text_has_no_bit_that_changes_its_content(indent):
    content = [{"epoch": 3, "name": "model-0003", "loss": [0.5, None]}]
    text = seal(content, indent).encode()
    assert unseal(text.decode()) == content
    for place in range(8 * len(text)):
        damaged = bytearray(text)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert unseal(damaged.decode()) == content  # white space, for example
        except ValueError:
            continue


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"sha256": 1, "content": []}'])
def test_what_was_not_sealed_is_refused(text):
    with pytest.raises(ValueError):
        unseal(text)


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


@pytest.fixture
def converted(tmp_path):
    """A run folder as a converter leaves it."""
    run = make_run(tmp_path / "run")
    params = run.load_params()
    run.params_file(3).unlink()
    run.save_params(3, params)
    run.save_inference_graph(mx.sym.relu(mx.sym.Variable("data")))
    return run


@pytest.mark.parametrize(
    "name", ["config.cfg", "dataset.yaml", "inference-symbol.json", "model-0003.params"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "zeros"])
def test_a_damaged_file_of_a_run_folder_is_named(converted, name, damage):
    file = converted.path / name
    content = file.read_bytes()
    if damage == "flip":
        flip(file, len(content) // 2)
    elif damage == "cut":  # a cut configuration would still load, with defaults
        file.write_bytes(content[: content.rfind(b"\n", 0, -2) + 1])
    else:
        file.write_bytes(content[:64] + bytes(200) + content[264:])
    with pytest.raises((RunError, ConfigError), match=name.replace(".", r"\.")) as caught:
        converted.load()
        converted.inference_graph()
        converted.load_params()
    assert "SHA-256" in str(caught.value)


def test_sha256sum_agrees(converted):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", digests.SUMS], cwd=converted.path, capture_output=True
    )
    assert done.returncode == 0, done.stdout


def test_a_trained_checkpoint_is_checked_where_it_is_read(tmp_path):
    run = make_run(tmp_path / "run")
    run.params_file(3).rename(tmp_path / "by hand")
    arrays = {"arg:a": mx.nd.arange(5)}
    for epoch in (1, 2):
        name, progress = f"model-{epoch:04d}", checkpoint.Progress(epoch=epoch)
        checkpoint.save(run.path, name, arrays, {}, progress, 3)
    assert run.load_params(1)[0]["a"].asnumpy().tolist() == [0, 1, 2, 3, 4]
    flip(run.params_file(1), -7)
    with pytest.raises(RunError, match=r"model-0001\.params: damaged: its SHA-256"):
        run.load_params(1)
    run.load_params(2)
    (tmp_path / "by hand").rename(run.params_file(3))
    run.load_params(3)  # not in a list of digests: accepted


@pytest.mark.parametrize("stop", range(1, 7))  # three files, a digest before and after each
def test_a_crash_between_file_and_digest_leaves_a_folder_that_reads(tmp_path, monkeypatch, stop):
    run = make_run(tmp_path / "run")
    config, dataset = run.load()
    other = dataclasses.replace(config, crf=dataclasses.replace(config.crf, w1=9.0))
    list_, calls = digests._list, []

    def crash(path, sums):
        calls.append(path.name)
        if len(calls) == stop:
            raise KeyboardInterrupt
        list_(path, sums)

    monkeypatch.setattr(digests, "_list", crash)
    with pytest.raises(KeyboardInterrupt):
        run.describe(other, dataset)
    assert run.load()[0] in (config, other)


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path):
    code = (
        "import sys, time; from train.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t: print(t.name, flush=True); time.sleep(60)"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / f"{name}.bin")],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for name in ("dead", "living")
    ]  # fmt: skip
    names = [writer.stdout.readline().strip() for writer in writers]
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    with atomic.atomic_write(tmp_path / "new.bin"):
        pass
    left = {file.name for file in tmp_path.iterdir()}
    writers[1].kill()
    writers[1].wait()
    assert left == {names[1], "new.bin"}


def test_leftover_folders_of_the_dead_go_and_what_is_the_users_stays(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from train.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as made:\n"
        "    made.mkdir(); (made / 'x').write_text('half'); os.kill(os.getpid(), 9)"
    )
    for name in ("run", "set.v2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], cwd=ROOT)
    (tmp_path / ".SHA256SUMS-abcd_123.part").write_text("half")  # of a file without suffix
    assert len(list(tmp_path.glob(".*.part"))) == 2  # the second call removed the first's
    for name in (".eslint-settings.json", ".my-settings", ".x-abcdefgh.png"):
        (tmp_path / name).touch()
    with atomic.atomic_folder(tmp_path / "new/run") as made:
        made.mkdir()
    atomic.remove_leftovers(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {".eslint-settings.json", ".my-settings", ".x-abcdefgh.png", "new"}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["run"]


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    file = tmp_path / ("x" * 251 + ".png")
    with atomic.atomic_write(file) as temporary:
        temporary.write_text("whole")
    assert file.read_text() == "whole"


def test_without_locks_the_job_goes_on_with_a_word(tmp_path, monkeypatch, caplog):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), atomic.locked(tmp_path, RunError("taken")):
        (tmp_path / ".x-abcdefgh.part.png").touch()
        atomic.remove_leftovers(tmp_path)
    assert "this file system has no locks" in caplog.text
    assert (tmp_path / ".x-abcdefgh.part.png").exists()  # its process may still run


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "x.png"), noise(8, 9))
    code = """if True:
        import os, sys
        from pathlib import Path
        from data_iter import DataError
        from data_iter.listing import list_files
        if os.getuid() == 0:
            os.setuid(65534)
        for pattern in ("**/*.png", "*/*.png", "b/*/*.png", "a/*.png"):
            try:
                print(len(list(list_files(Path(sys.argv[1]), pattern))))
            except DataError as error:
                print(error)
    """
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "b/c").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    (tmp_path / "b/c").chmod(0o755)
    deep, one, fixed, other = done.stdout.splitlines()
    assert "b/c: the folder cannot be read (Permission denied)" in deep
    assert "b/c: the folder cannot be read (Permission denied)" in fixed
    assert (one, other) == ("1", "1")


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_file_that_changes_its_size_under_a_job_is_a_bad_sample(tmp_path, which):
    pixels = {"image": noise(40, 56), "label": noise(40, 56)[:, :, 0] % 3}
    sample = Sample(tmp_path / "image.png", tmp_path / "label.png", "x")
    for name, values in pixels.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
    frames = FileFrames([sample])
    assert frames.read(0, slice(5, 20), slice(3, 9))[1].shape == (15, 6)
    for hw in ((30, 56), (40, 50), (80, 112)):
        cv2.imwrite(str(tmp_path / f"{which}.png"), np.zeros((*hw, 3)[: pixels[which].ndim]))
        # A label that only lost rows at its end can still give the rows before.
        for rows in (slice(5, 20), slice(25, 40))[which == "label" :]:
            with pytest.raises(DataError, match=r"no longer 56x40"):
                frames.read(0, rows)
