"""Converted weights of other projects compute the same function as the originals."""

import os

import mxnet as mx
import numpy as np
import onnx
import pytest
from tiny_run import make_run, random_params

from configs.datasets import load_dataset
from configs.loader import load_config
from configs.schema import Network
from symbols import get_symbol
from symbols.resnet import DEPTHS
from tools import convert_weights
from tools.weights.backbone import MEAN_RGB, STD_RGB
from tools.weights.gluoncv import zoo_backbone
from train.network import build_symbol
from train.params import join_params, read_params
from train.run_dir import RunDir

SIZES = [(64, 96), (75, 61)]


def error_of(capsys, *arguments):
    assert convert_weights.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def zoo_net(name, file):
    """GluonCV's own network with random weights and statistics, saved as the zoo saves them."""
    from gluoncv.model_zoo import get_model

    net = get_model(name, pretrained=False)
    net.initialize(mx.init.Xavier("gaussian", "in", 2))
    net(mx.nd.zeros((1, 3, 64, 64)))
    random = np.random.default_rng(0)
    for key, value in net._collect_params_with_prefix().items():
        kind = key.rpartition(".")[2]
        if kind in ("gamma", "running_var"):
            value.set_data(mx.nd.array(random.uniform(0.6, 1.2, value.shape)))
        elif kind in ("beta", "running_mean", "bias"):
            value.set_data(mx.nd.array(0.2 * random.standard_normal(value.shape)))
    net.save_parameters(str(file))
    return net


def stages_of(net, data):
    """Outputs of GluonCV's four stages at stride 8: the strides of the last two are removed."""
    if hasattr(net, "layer1"):
        body = [net.conv1, net.bn1, net.relu, net.maxpool]
        stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    else:
        body, stages = list(net.features)[:4], list(net.features)[4:8]
    for stage in stages[2:]:
        for convolution in (*stage[0]._children.values(), *stage[0].downsample):
            for layer in (convolution, *convolution._children.values()):
                if isinstance(layer, mx.gluon.nn.Conv2D):
                    layer._kwargs["stride"] = (1, 1)
    for layer in body:
        data = layer(data)
    outputs = []
    for stage in stages:
        data = stage(data)
        outputs.append(data.asnumpy())
    return outputs


@pytest.mark.parametrize(
    "name", ["resnet18_v1", "resnet18_v1b", "resnet50_v1", "resnet50_v1b", "resnet50_v1s"]
)
def test_stages_equal_gluoncv(name, tmp_path, capsys):
    net = zoo_net(name, tmp_path / "zoo.params")
    out = tmp_path / "ours.params"
    arguments = ["gluoncv", name, "--params", tmp_path / "zoo.params", "--out", out]
    assert convert_weights.main([str(a) for a in arguments]) == 0
    options = zoo_backbone(name).options
    printed = capsys.readouterr().out
    assert ("--set network.stride_in=" in printed) == ("18" not in name)
    assert f"solver.init_from={out}" in printed
    network = Network(
        depth=int(options["depth"]),
        stem=options["stem"],
        stride_in=options.get("stride_in", "3x3"),
        pool_pad=1,
        bn_eps=1e-5,
        dilation="none",
    )
    symbol = get_symbol(classes=2, head="x", **network.graph_options)
    internals = symbol.get_internals()
    last = dict(enumerate(DEPTHS[network.depth].units, start=2))
    stages = mx.sym.Group([internals[f"conv{s}_{u}/relu_output"] for s, u in last.items()])
    args, auxs = read_params(out)
    for hw in SIZES:
        rgb = np.random.default_rng(1).integers(0, 256, (1, 3, *hw)).astype(np.float32)
        mean = np.array(MEAN_RGB, np.float32)[:, None, None]
        executor = stages.bind(
            mx.cpu(), {**args, "data": mx.nd.array(rgb - mean)}, grad_req="null", aux_states=auxs
        )
        ours = [output.asnumpy() for output in executor.forward(is_train=False)]
        normalised = (rgb / 255 - [[[0.485]], [[0.456]], [[0.406]]]) / (STD_RGB / 255)[
            :, None, None
        ]
        for stage, (mine, theirs) in enumerate(
            zip(ours, stages_of(net, mx.nd.array(normalised))), 2
        ):
            assert mine.shape == theirs.shape
            scale = np.abs(theirs).max()
            assert scale > 0.1, "the network says nothing"
            np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-4, err_msg=str(stage))


def test_zoo_names_that_cannot_be_converted(tmp_path, capsys):
    out = ["--out", tmp_path / "x.params"]
    assert "average pooling" in error_of(capsys, "gluoncv", "resnet101_v1d", *out)
    assert "before each convolution" in error_of(capsys, "gluoncv", "resnet101_v2", *out)
    assert "no such network" in error_of(capsys, "gluoncv", "resnet99_v7", *out)
    assert "no such network" in error_of(capsys, "gluoncv", "resnet18_v1s", *out)
    mx.nd.save(str(tmp_path / "other.params"), {"conv1.weight": mx.nd.zeros((64, 3, 7, 7))})
    other = ["--params", tmp_path / "other.params"]
    assert "needs bn1.gamma" in error_of(capsys, "gluoncv", "resnet50_v1b", *other, *out)
    whole = (tmp_path / "other.params").read_bytes()
    (tmp_path / "other.params").write_bytes(whole[:-100])
    assert "not a whole" in error_of(capsys, "gluoncv", "resnet50_v1b", *other, *out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.params"]


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    zoo_net("resnet50_v1b", tmp_path / "zoo.params")
    options = ["--params", tmp_path / "zoo.params", "--out", tmp_path / "x.params"]
    assert "needs layer3.6.conv1.weight" in error_of(capsys, "gluoncv", "resnet101_v1b", *options)
    weights = mx.nd.load(str(tmp_path / "zoo.params"))
    for key, wrong, message in (
        ("layer2.1.conv2.weight", (128, 100, 3, 3), "resnet50_v1b has (128, 128, 3, 3)"),
        ("layer4.0.bn3.running_var", (7,), "resnet50_v1b has (2048,)"),
        ("layer1.3.bn1.gamma", (64,), "is not in resnet50_v1b"),
    ):
        mx.nd.save(str(tmp_path / "zoo.params"), {**weights, key: mx.nd.zeros(wrong)})
        error = error_of(capsys, "gluoncv", "resnet50_v1b", *options)
        assert f"{key} " in error and f"{wrong}" in error and message in error
    zoo_net("resnet50_v1c", tmp_path / "zoo.params")  # the names of v1s, half as many channels
    error = error_of(capsys, "gluoncv", "resnet50_v1s", *options)
    assert "conv1.0.weight is (32, 3, 3, 3), resnet50_v1s has (64, 3, 3, 3)" in error
    assert not (tmp_path / "x.params").exists()


@pytest.fixture
def small(tmp_path):
    """A configuration like the release's but small, and a run of it."""
    run = make_run(tmp_path / "source", epoch=7)
    config = tmp_path / "small.cfg"
    text = (run.path / "config.cfg").read_text()
    config.write_text(text.replace("dataset = cityscapes", "dataset = camvid"))
    return run, config


def test_a_release_checkpoint_becomes_a_run_folder(small, tmp_path, capsys):
    run, config = small
    out = tmp_path / "runs" / "release"
    arguments = ["release", run.params_file(7), "--config", config, "--out", out]
    assert convert_weights.main([str(a) for a in arguments]) == 0
    converted = RunDir(out)
    assert converted.epochs() == [7] and converted.load()[1].name == "camvid"
    for mine, theirs in zip(converted.load_params(), run.load_params()):
        assert mine.keys() == theirs.keys()
        assert all((mine[name] == theirs[name]).asnumpy().all() for name in mine)
    assert "exists already" in error_of(capsys, *arguments)
    args, auxs = run.load_params()
    dropped = args.pop("conv4_1_3x3_weight")
    mx.nd.save(str(tmp_path / "m.params"), join_params(args, auxs))
    rest = ["--config", config, "--out", tmp_path / "x"]
    error = error_of(capsys, "release", tmp_path / "m.params", *rest)
    assert f"conv4_1_3x3_weight {dropped.shape} is missing" in error
    assert not (tmp_path / "x").exists()


def onnx_file(path, params, symbol, rename=None):
    """Write an ONNX file with the tensors and one node for each layer that has some.

    In the authors' graph, and so in an export of it, a block's projection follows its branch.
    """
    layers = {}
    for name in (n.name for n in symbol.get_internals() if n.name in params):
        layers.setdefault(name.rsplit("_", 1)[0].replace("_moving", ""), []).append(name)
    order = [*layers]
    for at in [at for at, layer in enumerate(order) if layer.endswith("_1x1_proj")]:
        order[at : at + 8] = order[at + 2 : at + 8] + order[at : at + 2]  # convolution and BN each
    named = {name: rename(number) if rename else name for number, name in enumerate(params)}
    nodes = [
        onnx.helper.make_node(
            "BatchNormalization" if layer.endswith("/bn") else "Conv",
            ["x", *(named[name] for name in names)],
            ["x"],
            name=layer,
        )
        for layer, names in ((layer, layers[layer]) for layer in order)
    ]
    tensors = [
        onnx.numpy_helper.from_array(value.asnumpy(), named[name]) for name, value in params.items()
    ]
    graph = onnx.helper.make_graph(nodes, "net", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), str(path))
    return path


@pytest.mark.parametrize("rename", [None, "t{}".format])
def test_an_onnx_file_becomes_a_run_folder(small, rename, tmp_path, capsys):
    run, config = small
    args, auxs = run.load_params()
    symbol = build_symbol(*run.load())
    file = onnx_file(tmp_path / "a.onnx", args | auxs, symbol, rename)
    out = tmp_path / "out"
    rest = ["--config", config, "--out"]
    assert convert_weights.main([str(a) for a in ("onnx", file, *rest, out)]) == 0
    for mine, theirs in zip(RunDir(out).load_params(), (args, auxs)):
        assert mine.keys() == theirs.keys()
        assert all((mine[name] == theirs[name]).asnumpy().all() for name in mine)
    params = args | auxs
    params["conv3_1_3x3_weight"] = params["conv3_1_3x3_weight"][:, :1]
    other = onnx_file(tmp_path / "b.onnx", params, symbol, rename)
    error = error_of(capsys, "onnx", other, *rest, tmp_path / "x")
    assert "(8, 1, 3, 3), expected (8, 8, 3, 3) for conv3_1_3x3_weight" in error
    params = {"extra_weight": mx.nd.zeros((1, 2, 3, 4)), **args, **auxs}
    other = onnx_file(tmp_path / "d.onnx", params, symbol, rename)
    model = onnx.load(str(other))
    name = rename(0) if rename else "extra_weight"
    model.graph.node.append(onnx.helper.make_node("Conv", ["x", name], ["x"], name="extra"))
    onnx.save(model, str(other))
    error = error_of(capsys, "onnx", other, *rest, tmp_path / "x")
    assert ("has 65 convolutions" if rename else "extra_weight (1, 2, 3, 4) is not in") in error
    model = onnx.load(str(file))
    model.graph.initializer[5].raw_data = b"1234567"
    onnx.save(model, str(other))
    assert "is damaged" in error_of(capsys, "onnx", other, *rest, tmp_path / "x")
    gone = model.graph.initializer.pop(7)
    onnx.save(model, str(other))
    error = error_of(capsys, "onnx", other, *rest, tmp_path / "x")
    assert f"tensor {gone.name} of " in error if rename else f"no tensor for {gone.name}" in error
    (tmp_path / "c.onnx").write_bytes(b"not a network")
    assert "ONNX" in error_of(capsys, "onnx", tmp_path / "c.onnx", *rest, tmp_path / "x")
    os.mkfifo(tmp_path / "pipe.onnx")  # opening it would wait for ever
    error = error_of(capsys, "onnx", tmp_path / "pipe.onnx", *rest, tmp_path / "x")
    assert "expected a file, found a pipe" in error
    assert not (tmp_path / "x").exists()


def test_the_zoos_int8_file_is_told_apart(tmp_path, capsys):
    node = onnx.helper.make_node("QLinearConv", [*"abcdefgh"], ["y"])
    graph = onnx.helper.make_graph([node], "duc", [], [])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "int8.onnx"))
    error = error_of(capsys, "onnx", tmp_path / "int8.onnx", "--out", tmp_path / "x")
    assert "an int8 network (QLinearConv)" in error and "-12.onnx" in error
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_full_size_onnx_export_of_the_release_comes_back(tmp_path):
    config = load_config(convert_weights.RELEASE)
    symbol = build_symbol(config, load_dataset("cityscapes"))
    args, auxs = random_params(symbol, side=64)
    graph = mx.sym.softmax(symbol.get_children()[0], axis=1)
    file = str(tmp_path / "ResNet101-DUC.onnx")
    mx.onnx.export_model(graph, {**args, **auxs}, [(1, 3, 64, 64)], np.float32, file)
    out = tmp_path / "run"
    assert convert_weights.main(["onnx", file, "--out", str(out)]) == 0
    converted = RunDir(out).load_params()
    assert [len(group) for group in converted] == [326, 212]
    for mine, theirs in zip(converted, (args, auxs)):
        assert all(np.array_equal(mine[n].asnumpy(), theirs[n].asnumpy()) for n in theirs)
