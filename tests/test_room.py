"""Disk space is checked before work whose size is known; the error says what is needed."""

import subprocess
from types import SimpleNamespace

import cv2
import mxnet as mx
import numpy as np
import pytest
from tiny_run import make_run, noise

from configs.datasets import load_dataset
from tools import crf_search, make_toy_data, predict
from tools.shared.probabilities import write_probabilities
from train import RunError, atomic, checkpoint
from train.params import save_arrays


@pytest.fixture
def free(monkeypatch):
    """Set the free bytes that every disk claims to have."""

    def set_free(count):
        usage = SimpleNamespace(free=count)
        monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage)

    return set_free


@pytest.fixture
def one_megabyte(tmp_path):
    """Mount a real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_the_sentence_names_result_need_and_what_is_free(tmp_path, free):
    free(3_400_000)
    atomic.check_room(tmp_path / "not/there/x", 3_400_000, "it takes")
    sentence = r"not/there/x: it takes 2\.5 GB of disk space, and 3\.4 MB are free"
    with pytest.raises(RunError, match=sentence):
        atomic.check_room(tmp_path / "not/there/x", 2_500_000_000, "it takes")
    assert not (tmp_path / "not").exists()


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, hw in enumerate([(40, 56), (80, 112), (40, 56)]):
        cv2.imwrite(str(folder / f"{number}.png"), noise(*hw, seed=number))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "run").path


def save_maps(images, model, out):
    command = [images, "--model", model, "--save-probabilities", "--out", out]
    return predict.main([*map(str, command)])


def test_probability_maps_that_do_not_fit_are_refused_before_the_first(
    images, model, tmp_path, free, capsys
):
    classes, pixels = load_dataset("camvid").num_classes, [40 * 56, 80 * 112, 40 * 56]
    free(2 * classes * sum(pixels))
    assert save_maps(images, model, tmp_path / "all") == 0
    packed = [(tmp_path / f"all/{number}.npz").stat().st_size for number in range(3)]
    capsys.readouterr()
    free(int(1.05 * packed[0] * sum(pixels) / pixels[0]))
    assert save_maps(images, model, tmp_path / "none") == 2
    said = capsys.readouterr().err
    assert "none: the probability maps of 3 images take about " in said
    assert said.count("\n") == 1
    assert not (tmp_path / "none").exists()
    free(int(1.2 * packed[0] * sum(pixels) / pixels[0]))  # enough, as the maps are compressed
    assert save_maps(images, model, tmp_path / "packed") == 0


def test_a_real_disk_without_room_for_the_maps(images, model, one_megabyte, capsys):
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.png"), noise(400, 560, seed=number))
    assert save_maps(images, model, one_megabyte / "out") == 2
    assert "images take about" in capsys.readouterr().err
    assert not (one_megabyte / "out").exists()


def test_toy_data_that_does_not_fit_is_refused_before_it_is_drawn(one_megabyte, capsys):
    assert make_toy_data.main(["--out", str(one_megabyte / "toy")]) == 2
    said = capsys.readouterr().err
    assert "toy: 76 frames take about" in said and said.count("\n") == 1
    assert list(one_megabyte.iterdir()) == []


def test_a_search_whose_journal_does_not_fit_is_refused(images, tmp_path, free, capsys):
    maps, truths = tmp_path / "maps", tmp_path / "truths"
    truths.mkdir()
    for number, hw in enumerate([(40, 56), (80, 112), (40, 56)]):
        write_probabilities(maps / f"{number}.npz", np.full((11, *hw), 1 / 11, np.float32))
        cv2.imwrite(str(truths / f"{number}.png"), np.zeros(hw, np.uint8))
    free(3 * 2 * 3 * 11 * 11 - 1)  # frames, points (one is unrefined), bytes, numbers
    options = ["--images", images, "--probabilities", maps, "--ground-truth", truths]
    options += ["--dataset", "camvid", "--out", tmp_path / "out", "--grid", "w1=3", "iterations=1"]
    assert crf_search.main([*map(str, options)]) == 2
    assert "out: 6 results take at least 2.2 kB of disk space" in capsys.readouterr().err


def test_parameters_that_do_not_fit_leave_no_file(tmp_path, free):
    free(10_000)
    arrays = {"arg:a": mx.nd.zeros((50, 50)), "arg:b": mx.nd.zeros(1, dtype="int8")}
    with pytest.raises(RunError, match=r"x\.params: .*unharmed; this takes 10\.0 kB of disk space"):
        save_arrays(tmp_path / "x.params", arrays)
    assert list(tmp_path.iterdir()) == []
    free(10_001)
    assert save_arrays(tmp_path / "x.params", arrays)["bytes"] > 10_001


def test_a_training_looks_for_the_room_of_two_checkpoints(tmp_path, free):
    params = {"a": mx.nd.zeros(1000)}, {"b": mx.nd.zeros(500)}
    free(4 * 4 * 1500)
    checkpoint.check_first(tmp_path, params)
    free(4 * 4 * 1500 - 1)
    with pytest.raises(RunError, match="two checkpoints"):
        checkpoint.check_first(tmp_path, params)


def test_an_images_name_may_be_as_long_as_that_of_its_results(model, tmp_path, capsys):
    for length, code in ((243, 0), (244, 2)):
        image = tmp_path / f"{'n' * length}.png"
        cv2.imwrite(str(image), noise(40, 56))
        out = tmp_path / f"out{code}"
        assert predict.main([str(image), "--model", str(model), "--out", str(out)]) == code
    said = capsys.readouterr().err
    assert "_overlay.jpg: File name too long" in said and said.count("\n") == 1
    assert len(list((tmp_path / "out0").iterdir())) == 2
    assert not list(tmp_path.glob("out2/*"))
