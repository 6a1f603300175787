"""The workaround for sizes at which MXNet's 1x1 convolution crashes the process."""

import json

import mxnet as mx
import numpy as np
import pytest
from tiny_run import TINY, make_run, noise, random_params

from configs.datasets import load_dataset
from configs.schema import Config
from tools.inference.precision import require_bf16
from tools.inference.predictor import load
from tools.inference.quantization import folded, segmenter_of, to_bf16, to_int8
from tools.inference.run import read_run
from train import RunError, large
from train.folding import inference_graph
from train.large import split_convolutions
from train.network import build_symbol


def in_parts(symbol):
    """Number of parts of each convolution that was cut, by its name."""
    nodes = json.loads(symbol.tojson())["nodes"]
    return {n["name"]: int(n["attrs"]["num_args"]) for n in nodes if n["op"] == "Concat"}


@pytest.mark.parametrize(
    ("hw", "change", "expected"),
    [
        ((1024, 2048), {}, {}),
        ((1024, 2032), {"downsample": 4, "pool_pad": 1}, {}),
        # Table 1 at downsampling rate 4: 2048 channels of 256x512.
        (
            (1024, 2048),
            {"downsample": 4, "pool_pad": 1},
            {"conv5_1_1x1_proj": 2, "conv5_2_1x1_increase": 2},
        ),
        # Twice the size of a Cityscapes frame: 256 channels of 512x1024.
        ((2048, 4096), {"pool_pad": 1}, {"conv2_1_1x1_proj": 2, "conv5_1_1x1_increase": 2}),
        ((2048, 4096), {}, {"conv5_1_1x1_increase": 2}),
    ],
)
def test_which_convolutions_are_cut(hw, change, expected):
    """The crashing ones, and in training also those whose gradient would crash."""
    config = Config()
    network = type(config.network)(**change)
    symbol = build_symbol(type(config)(network=network), load_dataset("cityscapes"))
    found = in_parts(split_convolutions(inference_graph(symbol), {"data": (1, 3, *hw)}))
    assert expected.items() <= found.items()
    assert bool(found) == bool(expected)
    assert all("1x1" in name for name in found)
    training = in_parts(split_convolutions(symbol, {"data": (1, 3, *hw)}, training=True))
    assert found.items() <= training.items()
    if found:  # convolutions whose gradient is as large
        assert training.keys() - found.keys() >= {"conv5_2_1x1_reduce"}


# Each ran in a process of its own, on a processor with AVX-512; ``dies``: SIGFPE ended it. Those
# with 241, 256 and 512 channels and some neighbours ran in int8 and bf16 too, with the same result.
@pytest.mark.parametrize(
    ("channels", "hw", "dies"),
    [
        (256, (512, 1024), True),
        (241, (512, 1024), True),  # as many blocks of 16 as 256 has
        (240, (512, 1024), False),
        (272, (512, 1024), False),
        (384, (512, 1024), False),
        (512, (512, 1024), True),
        (768, (512, 1024), True),
        (1000, (512, 1024), True),  # in blocks of 32
        (1024, (512, 1024), True),
        (1024, (256, 512), False),
        (2048, (256, 512), True),
        (16, (1024, 2048), False),
        (32, (1024, 2048), True),
        (16, (2048, 2048), True),
        (32, (2048, 2048), True),
        (8, (4096, 4096), True),
        (256, (511, 1026), False),
        (256, (8, 65535), False),
        (256, (512, 1016), False),
        (128, (512, 1024), False),
    ],
)
def test_the_sizes_that_were_seen_to_die_are_cut_and_their_neighbours_are_not(channels, hw, dies):
    data = mx.sym.Variable("data")
    symbol = mx.sym.Convolution(data, kernel=(1, 1), num_filter=channels, name="1x1")
    found = in_parts(split_convolutions(symbol, {"data": (1, 16, *hw)}))
    assert bool(found) == dies


@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_parts_compute_the_same_in_few_bits(tmp_path, monkeypatch, precision, stride_in):
    """Convolutions with a fused sum or stride are cut too; 11 rows do not divide evenly."""
    if precision == "bf16":
        try:
            require_bf16()
        except RunError as error:
            pytest.skip(str(error))
    original = folded(read_run(make_run(tmp_path / "run", stride_in=stride_in, pool_pad=1).path))
    image = noise(88, 104)
    run = to_int8(original, [image], ["conv5_1"]) if precision == "int8" else to_bf16(original)
    data = segmenter_of(run).network_input(image)
    expected = segmenter_of(run).forward(data)
    monkeypatch.setattr(large, "OVERFLOW", 11 * 11 * 13 * 4)
    cut = in_parts(split_convolutions(run.symbol, {"data": data.shape}))
    assert len(cut) >= 8
    if precision == "int8":
        fused = [name for name in cut if "add" in name]
        assert fused and [name for name in cut if name.startswith("sg_")]  # sg_: those in float
    found = segmenter_of(run).forward(data)
    if precision == "int8":
        np.testing.assert_array_equal(found, expected)
    else:  # parts have no fused sums, so they round elsewhere; both are as far from float
        exact = segmenter_of(original).forward(data)
        errors = [np.abs(output - exact).mean() for output in (found, expected)]
        assert 0 < errors[0] < 1.3 * errors[1]


def gradients(symbol, params, data, label):
    arguments = {**params[0], "data": data, "seg_loss_label": label}
    executor = symbol.bind(
        mx.cpu(),
        arguments,
        args_grad={name: mx.nd.zeros_like(value) for name, value in params[0].items()},
        aux_states={name: value.copy() for name, value in params[1].items()},
    )
    output = executor.forward(is_train=True)[0].asnumpy()
    executor.backward()
    return output, {name: executor.grad_dict[name].asnumpy() for name in params[0]}


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_parts_are_the_same_function_with_the_same_gradients(stride_in, monkeypatch):
    """The limit is lowered to the tiny network's size; 11 rows do not divide evenly."""
    monkeypatch.setattr(large, "OVERFLOW", 11 * 11 * 13 * 2)
    network = type(TINY)(**{**vars(TINY), "stride_in": stride_in, "pool_pad": 1})
    dataset = load_dataset("camvid")
    symbol = build_symbol(type(Config())(network=network), dataset, learn_bn=True)
    hw, random = (88, 104), np.random.default_rng(0)
    shapes = {"data": (2, 3, *hw)}
    split = split_convolutions(symbol, shapes, training=True)
    assert {"conv3_1_1x1_reduce", "conv3_1_1x1_proj", "conv5_2_1x1_increase"} <= in_parts(
        split
    ).keys()
    assert sorted(split.list_arguments()) == sorted(symbol.list_arguments())
    assert split.list_outputs() == symbol.list_outputs()
    params = random_params(symbol)
    data = mx.nd.array(random.normal(0, 60, (2, 3, *hw)))
    label = mx.nd.array(random.integers(0, 11, (2, hw[0] * hw[1] // 4)))
    whole, expected = gradients(symbol, params, data, label)
    parts, found = gradients(split, params, data, label)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, atol=1e-4 * scale + 1e-7, err_msg=name)


def test_prediction_goes_round_at_one_size_and_not_at_another(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    images = [noise(88, 104), noise(88, 96), noise(176, 104)]
    expected = [load(run.path).segmenter.cell_probabilities(image) for image in images]
    monkeypatch.setattr(large, "OVERFLOW", 11 * 11 * 13 * 4)
    segmenter = load(run.path).segmenter
    for image, cells in zip(images * 2, expected * 2):
        shape = segmenter.network_input(image).shape
        symbol = inference_graph(read_run(run.path).symbol)
        assert bool(in_parts(split_convolutions(symbol, {"data": shape}))) == (shape[3] == 104)
        np.testing.assert_allclose(segmenter.cell_probabilities(image), cells, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hw", "change"),
    [((4096, 512), {"downsample": 4, "pool_pad": 1}), ((8192, 1024), {"pool_pad": 1})],
)
def test_a_frame_that_would_end_the_process(hw, change, tmp_path):
    """Its labels equal those of two smaller parts of it, except near the borders of the parts.

    At a quarter of the width, a frame of 4096x512 has the 2^32 that 1024x2048 has at full width.
    """
    network = {"width": 0.25, "aspp": (1,), "dilation": "1; 1", "cell": 4, **change}
    run = make_run(tmp_path / "run", **network)
    segmenter = load(run.path).segmenter
    symbol = inference_graph(read_run(run.path).symbol)
    assert in_parts(split_convolutions(symbol, {"data": (1, 3, *hw)}))
    image = noise(*hw)
    labels = segmenter.labels(image)
    side, far = 512, 512 - segmenter.receptive_radius
    assert far > 150
    part = segmenter.labels(image[:side, :side])
    assert np.mean(labels[:far, :far] == part[:far, :far]) > 0.9999
    part = segmenter.labels(image[-side:, -side:])
    assert np.mean(labels[-far:, -far:] == part[-far:, -far:]) > 0.9999
