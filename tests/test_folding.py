"""Batch normalisation folded into convolutions computes the same."""

import json

import mxnet as mx
import numpy as np
import pytest
from tiny_run import TINY, random_params

from configs.schema import Network
from symbols import get_symbol
from train.folding import fold_batch_norm, inference_graph


def test_one_layer_by_hand():
    convolution = mx.sym.Convolution(
        mx.sym.Variable("data"), num_filter=1, kernel=(1, 1), no_bias=True, name="c"
    )
    normal = mx.sym.BatchNorm(convolution, eps=0.25, fix_gamma=False, name="c/bn")
    graph = mx.sym.relu(normal, name="c/relu")
    one = {name: mx.nd.array([value]) for name, value in {"gamma": 3, "beta": 5}.items()}
    args = {"c_weight": mx.nd.array([[[[2.0]], [[4.0]]]])}
    args |= {f"c/bn_{name}": value for name, value in one.items()}
    auxs = {"c/bn_moving_mean": mx.nd.array([7.0]), "c/bn_moving_var": mx.nd.array([2.0])}
    folded, params = fold_batch_norm(graph, args, auxs)
    assert folded.list_arguments() == ["data", "c_weight", "c_bias"]
    assert folded.list_auxiliary_states() == []
    # scale = 3 / sqrt(2 + 1/4) = 2; bias = 5 - 7 * 2
    np.testing.assert_allclose(params["c_weight"].asnumpy().ravel(), [4, 8])
    np.testing.assert_allclose(params["c_bias"].asnumpy(), [-9])
    np.testing.assert_allclose(args["c_weight"].asnumpy().ravel(), [2, 4])  # untouched
    assert params.keys() == {"c_weight", "c_bias"}


@pytest.mark.parametrize("decoder", ["duc", "bilinear", "deconv"])
def test_a_folded_network_computes_the_same(decoder):
    options = vars(TINY) | {"decoder": decoder, "cell": 2 if decoder == "duc" else 1}
    symbol = get_symbol(classes=5, head="x", **Network(**options).graph_options)
    args, auxs = random_params(symbol)
    graph = inference_graph(symbol)
    folded, params = fold_batch_norm(graph, args, auxs)
    assert not folded.list_auxiliary_states()
    assert not [name for name in folded.list_arguments() if "/bn" in name]
    data = mx.nd.array(100 * np.random.default_rng(0).standard_normal((1, 3, 40, 56)))
    results = [
        g.bind(mx.cpu(), {**p, "data": data}, grad_req="null", aux_states=a)
        .forward(is_train=False)[0]
        .asnumpy()
        for g, p, a in ((graph, args, auxs), (folded, params, {}))
    ]
    assert results[0].std() > 0.01
    np.testing.assert_allclose(results[1], results[0], atol=1e-4)


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
def test_additions_and_activations_are_fused_into_the_convolutions(stem):
    options = vars(TINY) | {"stem": stem}
    symbol = get_symbol(classes=5, head="x", **Network(**options).graph_options)
    folded, _ = fold_batch_norm(inference_graph(symbol), *random_params(symbol))
    nodes = json.loads(folded.get_backend_symbol("MKLDNN").tojson())["nodes"]
    left = sorted(node["op"] for node in nodes if node["op"] not in ("null", "_sg_mkldnn_conv"))
    assert left == ["Pooling", "Reshape", "add_n", "softmax"]
