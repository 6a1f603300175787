"""int8 networks as ONNX files: the graph by hand, and both libraries against the float network."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_run import make_run, noise

from data_iter.image_files import read_label
from tools import predict, quantize
from tools.inference import backends
from tools.inference.backends import BACKENDS, fastest_backend
from tools.inference.predictor import load
from tools.inference.qdq import activations, observe, quantise
from train.run_dir import INFERENCE_ONNX

onnxruntime = pytest.importorskip("onnxruntime")


def two_layers():
    """data -> Conv a -> Relu -> Conv b, added to itself; 1x1 weights of three and two channels."""
    arrays = {
        "a_weight": np.array([[1, -2], [0.5, 0.25], [0, 0]], np.float32).reshape(3, 2, 1, 1),
        "a_bias": np.array([0.5, 0, -1], np.float32),
        "b_weight": np.array([[1, 0, 3], [-1, 2, 1]], np.float32).reshape(2, 3, 1, 1),
        "b_bias": np.array([0, 0.125], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "a_weight", "a_bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["a/relu"], "a/relu"),
        helper.make_node("Conv", ["a/relu", "b_weight", "b_bias"], ["b"], "b"),
        helper.make_node("Add", ["b", "b"], ["sum"], "sum"),
    ]
    tensors = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 2, "h", "w"))
        for name in ("data", "sum")
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "two", tensors[:1], tensors[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_scales_and_integers_by_hand(tmp_path):
    model, file = two_layers(), tmp_path / "two.onnx"
    onnx.save(model, str(file))
    names = activations(model.graph, ())
    assert names == ["data", "a/relu", "b"]
    data = np.array([[1, -2], [3, 0.5]], np.float32).reshape(1, 2, 1, 2)  # a: -4.5, -2.5; 1.25, ...
    ranges = observe(file, names, [data, data / 2])
    assert ranges["data"] == (-2, 3)
    # a = (x - 2 y + 0.5, x / 2 + y / 4, -1) at (1, 3) and (-2, 0.5), and at their halves
    assert ranges["a/relu"] == (0, 1.25)
    quantise(model, ranges, ())
    onnx.checker.check_model(model, full_check=True)
    found = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    assert found["data/zero"].dtype == np.int8 and found["data/scale"] == np.float32(3 / 127)
    assert found["a/relu/zero"].dtype == np.uint8
    assert found["a/relu/scale"] == np.float32(1.25 / 255)
    integers = found["a_weight/integers"][:, :, 0, 0].tolist()
    assert integers == [[32, -64], [64, 32], [0, 0]]
    np.testing.assert_allclose(found["a_weight/scale"], [2 / 64, 0.5 / 64, 1])
    np.testing.assert_allclose(found["a_bias/scale"], found["a_weight/scale"] * 3 / 127)
    np.testing.assert_array_equal(found["a_bias/integers"], [round(0.5 * 127 * 64 / 6), 0, -42])
    onnx.save(model, str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (total,) = session.run(None, {"data": data})
    a = np.maximum([[1 - 6 + 0.5, -2 - 1 + 0.5], [0.5 + 0.75, -1 + 0.125], [-1, -1]], 0)
    b = np.array([[1, 0, 3], [-1, 2, 1]]) @ a + [[0], [0.125]]
    np.testing.assert_allclose(total[0, :, 0], 2 * b, atol=0.06)  # a few quantisation steps


def test_layers_that_stay_in_float():
    model = two_layers()
    assert activations(model.graph, ("b",)) == ["data"]
    quantise(model, {"data": (-2.0, 3.0)}, ("b",))
    assert "b_weight" in {c.name for c in model.graph.initializer}
    inputs = {node.output[0]: list(node.input) for node in model.graph.node}
    assert inputs["b"] == ["a/relu", "b_weight", "b_bias"] and inputs["sum"] == ["b", "b"]
    assert inputs["a"][0] == "data/dequantised"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A float run, and the folder that quantize makes of it."""
    folder = tmp_path_factory.mktemp("qdq")
    run = make_run(folder / "run", width=0.25).path
    (folder / "images").mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"images/{number}.png"), noise(72, 96, seed=number)[:, :, ::-1])
    options = ["--model", run, "--out", folder / "int8", "--images", folder / "images"]
    assert quantize.main([str(a) for a in options]) == 0
    return run, folder / "int8", folder / "images"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_int8_folder_on_other_libraries(backend, quantised):
    pytest.importorskip(backend)
    run, int8, _ = quantised
    model = onnx.load(str(int8 / INFERENCE_ONNX))
    kinds = [node.op_type for node in model.graph.node]
    convolutions = kinds.count("Conv")
    assert kinds.count("DequantizeLinear") >= 3 * convolutions  # input, weights, bias
    exact, found = load(run).segmenter, load(int8, backend=backend).segmenter
    mxnet = load(int8).segmenter
    for hw in ((72, 96), (37, 53)):  # the calibration's size, and another
        image = noise(*hw, seed=7)
        expected = exact.cell_probabilities(image)
        cells = found.cell_probabilities(image)
        assert 0 < np.abs(cells - expected).mean() < 0.02
        assert np.mean(found.labels(image) == exact.labels(image)) > 0.9
        assert np.mean(found.labels(image) == mxnet.labels(image)) > 0.85


def test_auto_takes_what_is_fastest_of_what_is_there(quantised, tmp_path, monkeypatch, capsys):
    run, int8, images = quantised
    there = {"openvino", "onnxruntime"}
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    cpu, gpu = (type("Device", (), {"device_type": kind}) for kind in ("cpu", "gpu"))
    assert [fastest_backend(path, cpu) for path in (run, int8)] == ["openvino", "openvino"]
    assert fastest_backend(run, gpu) == "mxnet"
    there.remove("openvino")
    assert [fastest_backend(path, cpu) for path in (run, int8)] == ["onnxruntime", "mxnet"]
    options = ["--model", run, "--out", tmp_path / "auto", "--backend", "auto"]
    assert predict.main([str(a) for a in (images, *options)]) == 0
    assert "computing with onnxruntime" in capsys.readouterr().out
    there.clear()
    assert fastest_backend(run, cpu) == "mxnet"
    assert predict.main([str(a) for a in (images, "--model", run, "--out", tmp_path / "m")]) == 0
    pairs = [[read_label(tmp_path / way / f"{n}.png") for n in range(3)] for way in ("auto", "m")]
    assert np.mean(np.array(pairs[0]) == np.array(pairs[1])) > 0.999


def test_a_bf16_folder_is_mxnets(tmp_path, capsys):
    """Only MXNet runs it; another backend is refused."""
    run = make_run(tmp_path / "run").path
    from tools.inference import quantization
    from tools.inference.run import read_run

    made = quantization.to_bf16(quantization.folded(read_run(run)))
    quantization.write_inference_run(tmp_path / "bf16", made, 3)
    cpu = type("Device", (), {"device_type": "cpu"})
    assert fastest_backend(tmp_path / "bf16", cpu) == "mxnet"
    cv2.imwrite(str(tmp_path / "a.png"), noise(16, 16))
    options = ["--model", tmp_path / "bf16", "--backend", "onnxruntime", "--out", tmp_path / "o"]
    assert predict.main([str(a) for a in (tmp_path / "a.png", *options)]) == 2
    assert "run in MXNet only" in capsys.readouterr().err
