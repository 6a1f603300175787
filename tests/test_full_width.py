"""The three backbones of the paper's tables at full width, forward and backward, with BN fixed.

296x304 pixels are the fewest at which every dilation reaches a neighbour (feature maps of 37x38,
rates of up to 36) on a map that is not square. The test shows that all gradients of a network
together are the slope of its loss, not that it learns.
"""

import dataclasses
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from configs.datasets import load_dataset
from configs.loader import load_config
from data_iter.cells import pack_labels
from train.initial import initial_params
from train.network import HEAD, build_symbol, cell_layout

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
HW = (296, 304)
# ResNet-101 and ResNet-152 with the 7x7 stem, ResNet-101 with three 3x3 ("better network").
ROWS = ("table2_dilation_bigger", "table3_resnet152_duc_hdc_fine", "table4_duc_hdc_coarse_better")
STEP = 5e-5  # of each array's norm; the difference's error falls with its square


def start(config, dataset):
    """Initial parameters with scores of about 1: a saturated softmax has almost no slope."""
    params = initial_params(config, dataset)
    for name, value in params[0].items():
        if name.startswith(HEAD):
            value *= 0.01
    return params


def batch(config):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 3, 37, 38)).repeat(8, 2).repeat(8, 3)
    labels = random.integers(0, 19, (1, *HW)).astype(np.uint8)
    labels[:, 128:144] = 255
    label = pack_labels(labels, *cell_layout(config.network))
    return image - np.reshape(config.network.mean_rgb, (1, 3, 1, 1)), label


def bound(symbol, params, data, label, trained=()):
    """Bind the graph to these arrays, with gradients of the ``trained`` ones."""
    arguments = {**params[0], "data": mx.nd.array(data), "seg_loss_label": mx.nd.array(label)}
    return symbol.bind(
        mx.cpu(),
        arguments,
        args_grad={name: mx.nd.zeros_like(params[0][name]) for name in trained},
        grad_req={name: "write" if name in trained else "null" for name in arguments},
        aux_states=params[1],
    )


def forward(executor, is_train=False):
    probabilities = executor.forward(is_train=is_train)[0].asnumpy()
    mx.nd.waitall()  # statistics are written after the outputs
    return probabilities


def mean_loss(probabilities, label):
    chosen = np.take_along_axis(probabilities, label[:, None].clip(0, 18).astype(int), 1)[:, 0]
    return -np.log(chosen[label != 255].astype(np.float64)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_forward_and_backward_at_full_width(name):
    config = load_config(CONFIGS / f"{name}.cfg")
    dataset = load_dataset(config.data.dataset)
    assert config.network.width == 1 and max(config.network.aspp) == 36
    params, (data, label) = start(config, dataset), batch(config)

    # Learn the statistics of this image; fixed, they keep every activation in range.
    last = dataclasses.replace(config.network, bn_momentum=0.0)
    learning = dataclasses.replace(config, network=last)
    graph = build_symbol(learning, dataset, learn_bn=True)
    expected = forward(bound(graph, params, data, label), is_train=True)
    statistics = {key: value.asnumpy() for key, value in params[1].items()}

    executor = bound(build_symbol(config, dataset), params, data, label, params[0])
    probabilities = forward(executor, is_train=True)
    executor.backward()
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)
    gradients = {key: executor.grad_dict[key].asnumpy() for key in params[0]}
    assert all(np.array_equal(params[1][key].asnumpy(), old) for key, old in statistics.items())
    for key, gradient in gradients.items():
        assert np.isfinite(gradient).all() and gradient.any(), key
        if gradient.shape[2:] == (3, 3):  # whatever the dilation, all nine taps meet the map
            assert np.abs(gradient).max(axis=(0, 1)).min() > 0, key

    # The slope along all gradients at once, each scaled to its array, by a central difference.
    norms = {key: np.linalg.norm(value.asnumpy()) for key, value in params[0].items()}
    steps = {key: g / np.linalg.norm(g) * norms[key] for key, g in gradients.items()}
    slope = sum(float((steps[key] * g).sum()) for key, g in gradients.items())
    losses, begun = [], {key: value.copy() for key, value in params[0].items()}
    for sign in (1, -1):
        for key, value in begun.items():
            params[0][key][:] = value + mx.nd.array(sign * STEP * steps[key])
        losses.append(mean_loss(forward(executor), label))
    assert (losses[0] - losses[1]) / (2 * STEP) == pytest.approx(slope, rel=0.01)
