"""ONNX files and other backends compute what MXNet computes."""

import sys

import cv2
import numpy as np
import onnx
import psutil
import pytest
from tiny_run import make_run, noise

from data_iter.image_files import read_label
from tools import export_onnx, predict
from tools.inference.backends import require
from tools.inference.predictor import load

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("onnx") / "run").path


def export(run, out, *options):
    arguments = ["--model", run, "--out", out, *options]
    assert export_onnx.main([str(a) for a in arguments]) == 0
    onnx.checker.check_model(str(out), full_check=True)
    return onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])


def test_free_sizes_give_the_networks_own_cells(run, tmp_path, capsys):
    session = export(run, tmp_path / "m.onnx")
    assert "within" in capsys.readouterr().out
    assert [i.shape for i in session.get_inputs()] == [["batch", 3, "height", "width"]]
    network = load(run)
    segmenter, dataset = network.segmenter, network.dataset
    for hw in ((37, 53), (1, 1), (64, 96)):
        data = segmenter.network_input(noise(*hw))
        found = session.run(None, {"data": np.concatenate([data, data[:, :, ::-1]])})[0]
        assert found.shape == (2, 11, data.shape[2] * data.shape[3] // 4)
        np.testing.assert_allclose(found[0], segmenter.forward(data), atol=1e-5)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["mean_rgb"] == "122.675,116.669,104.008"
    assert properties["classes"].split(",")[0] == dataset.train_classes[0].name


@pytest.mark.parametrize("decoder", ["duc", "bilinear", "deconv"])
def test_pixels_on_request(decoder, tmp_path):
    """--pixels exports probabilities of pixels instead of cells, for free and for fixed sizes."""
    cell = 2 if decoder == "duc" else 1
    run = make_run(tmp_path / "run", decoder=decoder, cell=cell).path
    free = export(run, tmp_path / "free.onnx", "--pixels")
    fixed = export(run, tmp_path / "fixed.onnx", "--pixels", "--hw", "40,56", "--batch", "2")
    assert fixed.get_inputs()[0].shape == [2, 3, 40, 56]
    assert fixed.get_outputs()[0].shape == [2, 11, 40, 56]
    segmenter = load(run).segmenter
    image = noise(40, 56)
    data = segmenter.network_input(image)
    expected = segmenter.probabilities(image)
    np.testing.assert_allclose(free.run(None, {"data": data})[0][0], expected, atol=1e-5)
    twice = fixed.run(None, {"data": np.repeat(data, 2, 0)})[0]
    np.testing.assert_allclose(twice, [expected, expected], atol=1e-5)


def test_an_exported_file_differs_without_getting_its_name(run, tmp_path, capsys, monkeypatch):
    """Nothing is left of a file that differs from MXNet, or of a call with wrong options."""
    monkeypatch.setattr(export_onnx, "difference", lambda *_: 0.1)
    arguments = ["--model", str(run), "--out", str(tmp_path / "m.onnx")]
    assert export_onnx.main(arguments) == 2
    assert "differs from MXNet by 0.1" in capsys.readouterr().err
    assert export_onnx.main([*arguments, "--hw", "40,57"]) == 2
    assert "multiples of 8" in capsys.readouterr().err
    assert export_onnx.main([*arguments, "--hw", "forty"]) == 2
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert export_onnx.main([*arguments, "--out", "gone/m.onnx"]) == 2
    assert "differs from MXNet by 0.1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_images_of_any_size_compare(run, tmp_path, capsys):
    """--images compares the export with MXNet on these images, which may have one name."""
    for number, hw in enumerate([(5, 6), (61, 4), (50, 70)]):
        (tmp_path / str(number)).mkdir()
        cv2.imwrite(str(tmp_path / str(number) / "a.png"), noise(*hw))
    for options in (["--pixels"], [], ["--pixels", "--hw", "16,24", "--batch", "2"]):
        export(run, tmp_path / "m.onnx", "--images", tmp_path, *options)
        assert "within" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_predict_the_same_labels(backend, run, tmp_path):
    pytest.importorskip(backend)
    (tmp_path / "in").mkdir()
    for number, hw in enumerate([(120, 160), (37, 53), (1, 1)]):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), noise(*hw, seed=number))
    found = []
    for name in ("mxnet", backend):
        out = tmp_path / name
        options = ["--model", run, "--out", out, "--backend", name]
        assert predict.main([str(a) for a in (tmp_path / "in", *options)]) == 0
        found.append(np.concatenate([read_label(out / f"{n}.png").ravel() for n in range(3)]))
    assert (found[0] == found[1]).mean() > 0.999


@pytest.mark.slow
def test_memory_of_openvino_stays_over_many_sizes(run):
    pytest.importorskip("openvino")
    segmenter = load(run, backend="openvino").segmenter
    after = []
    for size in np.random.default_rng(0).permutation(225):
        segmenter.labels(np.zeros((8 + 8 * (size % 15), 8 + 8 * (size // 15), 3), np.uint8))
        after.append(psutil.Process().memory_info().rss)
    assert after[-1] - after[74] < 30 << 20  # 296 MB with OpenVINO's default settings


def test_a_missing_backend_says_which_extra(monkeypatch, capsys, run, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), noise(16, 16))
    options = ["--model", run, "--out", tmp_path / "o", "--backend", "openvino"]
    assert predict.main([str(a) for a in (image, *options)]) == 2
    assert "pip install -e '.[openvino]'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    with pytest.raises(ValueError, match="extra|pip install"):
        require("openvino")
