"""The Python API, ONNX files as models, epochs by name, and the size that images are resized to."""

import json
import textwrap
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_run import make_run, noise

from data_iter.errors import DataError
from data_iter.image_files import read_label
from tools import export_onnx, predict
from tools.inference.averaging import resize
from tools.inference.predictor import load
from train.errors import RunError
from train.machine import PROJECT
from train.segmenter import most_probable, upsample


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("predictor") / "run")


@pytest.fixture(scope="module")
def network(run):
    return load(run.path)


def test_arrays_files_and_pillow_images_give_the_same(network, tmp_path):
    image = noise(37, 53)
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = network.labels(image)
    assert labels.shape == (37, 53) and labels.dtype == np.uint8
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image)):
        np.testing.assert_array_equal(network.labels(same), labels)
    probabilities = network.probabilities(image)
    assert probabilities.shape == (11, 37, 53)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(0), labels)
    colour = np.array([row.color for row in network.classes])[labels]
    np.testing.assert_allclose(network.overlay(image), (image + colour) / 2.0, atol=0.51)
    assert [row.name for row in network.classes][:2] == ["sky", "building"]
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(DataError, match="expected uint8"):
            network.labels(wrong)


def test_threads_share_a_network_without_mixing_results(network):
    images = [noise(24 + 8 * (n % 3), 40 + n, seed=n) for n in range(24)]
    expected = [network.labels(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(network.labels, images), expected):
            np.testing.assert_array_equal(found, wanted)


def test_an_exported_file_is_a_model(run, network, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "m.onnx"
    assert export_onnx.main(["--model", str(run.path), "--out", str(file)]) == 0
    exported = load(file, threads=1)
    assert (exported.config, exported.dataset) == (network.config, network.dataset)
    image = noise(37, 53)
    np.testing.assert_allclose(
        exported.probabilities(image), network.probabilities(image), atol=1e-4
    )
    assert export_onnx.main(["--model", str(run.path), "--out", str(file), "--pixels"]) == 0
    with pytest.raises(RunError, match="export it without --pixels"):
        load(file)
    (tmp_path / "other.onnx").write_bytes(b"no network")
    (tmp_path / "text.txt").write_text("")
    for name, says in (
        ("other.onnx", "cannot be read as ONNX|no config.cfg"),
        ("text.txt", "expected a run folder or an .onnx file"),
        ("gone", "no such run folder or ONNX file"),
    ):
        with pytest.raises(RunError, match=says):
            load(tmp_path / name)


def test_epochs_by_name(tmp_path, capsys):
    """--epoch takes best, last or a number, and each reads its own parameters."""
    run = make_run(tmp_path / "run", epoch=3)
    other = make_run(tmp_path / "other", epoch=5, seed=1)
    run.params_file(5).write_bytes(other.params_file(5).read_bytes())
    assert (run.chosen_epoch("last"), run.chosen_epoch(3)) == (5, 3)
    with pytest.raises(RunError, match="no epoch of it was validated"):
        run.chosen_epoch("best")
    assured = {suffix: {"bytes": 1, "sha256": "0"} for suffix in (".params", ".state")}
    entry = {"name": "model-0009", "files": assured, "progress": {"best": "model-0003"}}
    (run.path / "checkpoints.json").write_text(json.dumps([entry]))
    assert run.chosen_epoch("best") == 3
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), noise(24, 40))
    found = {}
    for epoch in ("best", "last", "3"):
        out = tmp_path / epoch
        arguments = [image, "--model", run.path, "--epoch", epoch, "--out", out]
        assert predict.main([str(a) for a in arguments]) == 0
        found[epoch] = read_label(out / "a.png")
    np.testing.assert_array_equal(found["best"], found["3"])
    assert (found["best"] != found["last"]).any()
    assert predict.main([str(image), "--epoch", "first"]) == 2
    assert "--epoch first: expected best, last or a number" in capsys.readouterr().err


def test_images_are_seen_at_the_training_images_scale(tmp_path):
    run = make_run(tmp_path / "run")
    large, near = noise(100, 160), noise(50, 59)
    plain = load(run.path)  # nothing is recorded: the image's own size
    np.testing.assert_array_equal(plain.labels(large), load(run.path, long_side=None).labels(large))
    run.note_long_side(40)
    network = load(run.path)
    np.testing.assert_array_equal(network.labels(near), plain.labels(near))  # 59 < 1.5 * 40
    cells = plain.segmenter.cell_probabilities(resize(large, 0.25))
    expected = most_probable(upsample(plane, 2, (100, 160), 0.25) for plane in cells)
    np.testing.assert_array_equal(network.labels(large), expected)
    np.testing.assert_array_equal(load(run.path, long_side=40).labels(large), expected)
    (run.path / "images.json").write_text("[]")
    (run.path / "SHA256SUMS").unlink()
    with pytest.raises(RunError, match="images.json: expected"):
        load(run.path)


def test_the_example_in_the_docs_runs(tmp_path, monkeypatch):
    page = (PROJECT / "docs" / "deploying.md").read_text()
    begin = page.index("    from tools.inference.predictor import load")
    code = textwrap.dedent(page[begin : page.index("\n\nImages are files", begin)])
    Image.fromarray(noise(60, 80)).save(tmp_path / "street.png")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)
    assert scope["labels"].shape == scope["road"].shape == (60, 80)
    assert scope["names"][3] == "road"
