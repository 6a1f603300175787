"""The graph: parameter names of the release, shapes, and the loss gradient by hand."""

import re

import mxnet as mx
import numpy as np
import pytest

import symbols
from configs.schema import Network
from data_iter.cells import pack_labels
from symbols import NetworkError
from symbols.losses import weigh_gradient
from symbols.resnet import DEPTHS

RELEASE = {
    "classes": 19,
    "head": "cityscapes",
    "depth": 101,
    "stem": "3x3",
    "dilation": "release",
    "aspp": (6, 12, 18, 24),
    "cell": 2,
}


def get_symbol(**options):
    """The network of ``options`` over the schema's defaults."""
    return symbols.get_symbol(**(Network().graph_options | options))


def shapes(symbol, **inputs):
    arguments, outputs, states = symbol.infer_shape(**inputs)
    named = dict(zip(symbol.list_arguments(), arguments))
    return named | dict(zip(symbol.list_auxiliary_states(), states)), outputs


def test_release_network_has_the_released_parameters():
    symbol = get_symbol(**RELEASE)
    parameters = [n for n in symbol.list_arguments() if n not in ("data", "seg_loss_label")]
    assert len(parameters) == 326
    assert len(symbol.list_auxiliary_states()) == 212
    named, outputs = shapes(symbol, data=(1, 3, 800, 800))
    assert outputs == [(1, 19, 160000)]
    for name, shape in {
        "conv1_1_3x3_s2_weight": (64, 3, 3, 3),
        "conv1_3_3x3_weight": (128, 64, 3, 3),
        "conv1_3_3x3/bn_moving_var": (128,),
        "conv2_1_1x1_proj_weight": (256, 128, 1, 1),
        "conv4_23_3x3_weight": (256, 256, 3, 3),
        "conv4_23_3x3/bn_gamma": (256,),
        "conv5_3_1x1_increase/bn_moving_mean": (2048,),
        "fc1_cityscapes_c3_weight": (16 * 19, 2048, 3, 3),
        "fc1_cityscapes_c3_bias": (16 * 19,),
    }.items():
        assert named[name] == shape, name
    assert not any(name.startswith("conv") and name.endswith("_bias") for name in parameters)


def test_dilation_and_stride_sit_where_the_release_has_them():
    attrs = get_symbol(**RELEASE).attr_dict()
    rates = [int(attrs[f"conv4_{u}_3x3"]["dilate"][1:].split(",")[0]) for u in range(1, 24)]
    assert rates == [2, 2, 5, 9] + [1, 2, 5, 9] * 4 + [1, 2, 5]
    assert [attrs[f"conv5_{u}_3x3"]["dilate"] for u in (1, 2, 3)] == [
        "(5, 5)",
        "(9, 9)",
        "(17, 17)",
    ]
    strided = {
        name
        for name, a in attrs.items()
        if a.get("stride") == "(2, 2)" and not name.endswith("_weight")
    }
    assert strided == {"conv1_1_3x3_s2", "pool1_3x3_s2", "conv3_1_1x1_reduce", "conv3_1_1x1_proj"}


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({"cell": 1}, 40 * 72),
        ({"cell": 2}, 20 * 36),
        ({"decoder": "bilinear"}, 5 * 9),
        ({"cell": 1, "stem": "3x3", "stride_in": "3x3", "pool_pad": 1}, 40 * 72),
        ({"cell": 2, "downsample": 4, "pool_pad": 1}, 20 * 36),
        ({"decoder": "bilinear", "downsample": 4, "pool_pad": 1}, 10 * 18),
    ],
)
@pytest.mark.parametrize("depth", [26, 38, 50])
def test_output_has_one_value_per_cell_of_a_non_square_input(options, outputs, depth):
    symbol = get_symbol(classes=5, head="x", depth=depth, width=0.05, **options)
    named, found = shapes(symbol, data=(2, 3, 40, 72))
    assert found == [(2, 5, outputs)]
    assert named["seg_loss_label"] == (2, outputs)


def test_duc_channels_are_class_then_row_then_column():
    """Only the bias of (class 1, row 2, column 3) is raised: only those cells prefer class 1."""
    symbol = get_symbol(classes=2, head="x", depth=26, width=0.05, cell=2, aspp=(1,))
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=(1, 3, 16, 24))
    bias = np.zeros(2 * 16, np.float32)
    bias[1 * 16 + 2 * 4 + 3] = 5
    executor.arg_dict["fc1_x_c0_bias"][:] = bias
    cells = executor.forward()[0].asnumpy()[0, 1]
    where = np.zeros((16, 24), int)  # one label per pixel; cell 2 keeps the even ones
    where[2 * 2 :: 8, 2 * 3 :: 8] = 1
    np.testing.assert_array_equal(cells > 0.9, pack_labels(where, 2, 4) == 1)


@pytest.mark.parametrize(("normalization", "divisor"), [("valid", 3), ("fixed", 2 * 16)])
def test_loss_gradient_is_the_mean_over_valid_or_all_pixels(normalization, divisor):
    symbol = get_symbol(
        classes=3, head="x", depth=26, width=0.05, cell=2, aspp=(1,), normalization=normalization
    )
    executor = symbol.simple_bind(mx.cpu(), data=(2, 3, 8, 8))
    label = np.full((2, 16), 255, np.float32)
    label[0, 5], label[1, 2], label[1, 9] = 1, 2, 0
    executor.arg_dict["seg_loss_label"][:] = label
    executor.forward(is_train=True)  # all parameters are zero: every probability is 1/3
    executor.backward()
    expected = np.zeros((3, 16))  # softmax minus one-hot, by hand
    for cell, truth in ((5, 1), (2, 2), (9, 0)):
        expected[:, cell] += 1 / 3
        expected[truth, cell] -= 1
    found = executor.grad_dict["fc1_x_c0_bias"].asnumpy().reshape(3, 16)
    np.testing.assert_allclose(found, expected / divisor, atol=1e-6)


def test_statistics_are_learned_only_when_asked():
    states = {}
    for learn in (False, True):
        symbol = get_symbol(
            classes=2, head="x", depth=26, width=0.05, learn_bn=learn, bn_momentum=0.5
        )
        executor = symbol.simple_bind(mx.cpu(), data=(1, 3, 16, 16))
        executor.arg_dict["data"][:] = 1
        executor.arg_dict["conv1_7x7_s2_weight"][:] = 1
        executor.forward(is_train=True)
        executor.backward()  # MXNet updates the moving statistics here
        mx.nd.waitall()
        states[learn] = executor.aux_dict["conv1_7x7_s2/bn_moving_mean"].asnumpy()
    assert (states[False] == 0).all()
    assert (states[True] > 1).all()


def test_unknown_names_are_refused():
    with pytest.raises(NetworkError, match="depth 99"):
        get_symbol(classes=2, head="x", depth=99)
    with pytest.raises(NetworkError, match="decoder"):
        get_symbol(classes=2, head="x", depth=26, decoder="unpool")


def test_class_weights_multiply_the_gradient_and_nothing_else():
    random = np.random.default_rng(0)
    scores, weights = random.standard_normal((2, 3, 5)).astype(np.float32), [0.5, 3.0, 0.0]
    label = np.array([[0, 1, 2, 255, 1], [2, 2, 0, 1, 0]], np.float32)
    inputs = {"scores": mx.nd.array(scores), "label": mx.nd.array(label)}
    target = mx.sym.Variable("label")
    weighted = weigh_gradient(mx.sym.Variable("scores"), target, weights)
    loss = mx.sym.SoftmaxOutput(
        weighted, target, multi_output=True, use_ignore=True, ignore_label=255,
        normalization="valid",
    )  # fmt: skip
    gradient = mx.nd.zeros(scores.shape)
    bound = loss.bind(mx.cpu(), inputs, {"scores": gradient}, {"scores": "write", "label": "null"})
    bound.forward(is_train=True)
    bound.backward()
    exponentials = np.exp(scores)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(bound.outputs[0].asnumpy(), expected, rtol=1e-5)
    for image, cell in np.ndindex(label.shape):
        true = int(label[image, cell])
        if true == 255:
            expected[image, :, cell] = 0
        else:
            expected[image, true, cell] -= 1
            expected[image, :, cell] *= weights[true]
    np.testing.assert_allclose(gradient.asnumpy(), expected / 9, atol=1e-6)  # valid cells


@pytest.mark.parametrize(("depth", "stages"), [(18, 5), (34, 5), (18, 4)])
def test_basic_blocks_equal_gluoncvs(depth, stages):
    """GluonCV's ResNet-18 and 34 (v1b, dilated) with the same arrays, stage by stage."""
    from gluoncv.model_zoo import resnetv1b

    theirs = getattr(resnetv1b, f"resnet{depth}_v1b")(dilated=True)
    theirs.initialize(mx.init.Xavier(magnitude=3))
    random = np.random.default_rng(depth)
    data = mx.nd.array(random.normal(0, 1, (2, 3, 48, 72)))
    theirs(data)
    values = theirs._collect_params_with_prefix()
    for name, parameter in values.items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            parameter.set_data(mx.nd.array(random.uniform(0.5, 1.5, parameter.shape)))
    features = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(data))))
    for stage in range(1, stages):
        features = getattr(theirs, f"layer{stage}")(features)

    # GluonCV's dilated stages begin with half the rate: 1, 2, 2, 2 and 2, 4, 4, 4.
    rates = ["1" + ",2" * 20, "2" + ",4" * 20]
    symbol = get_symbol(
        classes=3,
        head="x",
        depth=depth,
        stages=stages,
        pool_pad=1,
        bn_eps=1e-5,
        dilation="; ".join(rates),
        aspp=(1,),
    )
    features_of = symbol.get_internals()[
        f"conv{stages}_{DEPTHS[depth].units[stages - 2]}/relu_output"
    ]
    kinds = {"gamma": "gamma", "beta": "beta", "moving_mean": "running_mean",
             "moving_var": "running_var", "weight": "weight"}  # fmt: skip
    inputs = {"data": data}
    for name in features_of.list_inputs():
        if name == "data":
            continue
        layer, kind = name.rsplit("/bn_", 1) if "/bn_" in name else (name[:-7], "weight")
        if layer == "conv1_7x7_s2":
            place = "conv1" if kind == "weight" else "bn1"
        else:
            block, unit, part = re.fullmatch(r"conv(\d)_(\d)_(.*)", layer).groups()
            place = f"layer{int(block) - 1}.{int(unit) - 1}."
            if part == "1x1_proj":
                place += f"downsample.{0 if kind == 'weight' else 1}"
            else:
                place += ("conv" if kind == "weight" else "bn") + part[-1]
        inputs[name] = values[f"{place}.{kinds[kind]}"].data()
    executor = features_of.bind(
        mx.cpu(),
        {name: inputs[name] for name in features_of.list_arguments()},
        aux_states={name: inputs[name] for name in features_of.list_auxiliary_states()},
    )
    ours = executor.forward()[0].asnumpy()
    assert ours.shape == features.shape
    np.testing.assert_allclose(ours, features.asnumpy(), rtol=1e-4, atol=1e-3)
