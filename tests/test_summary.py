"""The summary's counts against arithmetic by hand and against MXNet's own arrays."""

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from configs.datasets import load_dataset
from configs.loader import load_config
from tools import summary
from train.network import build_symbol

CONFIGS = Path(summary.__file__).parents[1] / "configs"


def test_counts_of_a_hand_made_graph():
    body = mx.sym.Variable("data")
    body = mx.sym.Convolution(
        body, num_filter=8, kernel=(3, 3), stride=(2, 2), pad=(1, 1), no_bias=True, name="a_first"
    )
    body = mx.sym.BatchNorm(body, fix_gamma=False, name="a_first/bn")
    body = mx.sym.relu(body, name="a_first/relu")
    body = mx.sym.Pooling(body, kernel=(2, 2), stride=(2, 2), pool_type="max", name="b_pool")
    body = mx.sym.Convolution(body, num_filter=6, kernel=(1, 1), name="c_second")
    body = mx.sym.Deconvolution(
        body, num_filter=2, kernel=(4, 4), stride=(2, 2), pad=(1, 1), no_bias=False, name="c_up"
    )
    first, pool, second, up = summary.summarise(body, (1, 3, 12, 20))
    assert first == summary.Layer(
        "a_first",
        (8, 6, 10),
        parameters=8 * 3 * 9 + 8 + 8,
        multiply_adds=8 * 6 * 10 * 3 * 9,
        activations=3 * 8 * 6 * 10,
    )
    assert pool == summary.Layer("b_pool", (8, 3, 5), activations=8 * 3 * 5)
    assert second == summary.Layer(
        "c_second", (6, 3, 5), 6 * 8 + 6, 6 * 3 * 5 * 8, activations=6 * 3 * 5
    )
    assert up == summary.Layer(
        "c_up", (2, 6, 10), 6 * 2 * 16 + 2, 6 * 3 * 5 * 2 * 16, activations=2 * 6 * 10
    )


def test_resnet101_counts_what_mxnet_binds():
    config = load_config(CONFIGS / "duc_hdc.cfg", ["network.width=0.1"])
    symbol = build_symbol(config, load_dataset("cityscapes"))
    layers = summary.summarise(symbol, (1, 3, 48, 80))
    executor = symbol.simple_bind(mx.cpu(), data=(1, 3, 48, 80))
    arrays = {k: v for k, v in executor.arg_dict.items() if k not in ("data", "seg_loss_label")}
    assert sum(layer.parameters for layer in layers) == sum(v.size for v in arrays.values())
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names) == 1 + 1 + 4 + 33 * 3 + 6  # stem, pool, proj, blocks, aspp
    assert layers[-1].output == (304, 6, 10)


def test_command_prints_the_whole_and_saves_the_graph(tmp_path, capsys):
    file = tmp_path / "g.json"
    arguments = ["--config", str(CONFIGS / "duc_hdc.cfg"), "--hw", "96,160", "--symbol", str(file)]
    assert summary.main(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    # 42.50 M of the backbone by He et al.'s table, with BN and without the 1000 classes; 6 x 5.60 M
    assert "parameters: 76.1 M" in text and "76,121,952" in text
    assert "conv4_23_1x1_increase 1024x12x20 264,192" in text
    assert mx.sym.load(str(file)).infer_shape(data=(1, 3, 96, 160))[1] == [(1, 19, 16 * 12 * 20)]


def test_planned_memory_is_between_the_largest_layer_and_everything():
    config = load_config(CONFIGS / "toy.cfg")
    symbol = build_symbol(config, load_dataset("cityscapes"))
    layers = summary.summarise(symbol, (1, 3, 192, 320))
    training = summary.planned_bytes(symbol, (1, 3, 192, 320), "write")
    predicting = summary.planned_bytes(symbol, (1, 3, 192, 320), "null")
    everything = 4 * sum(layer.activations for layer in layers)
    assert 4 * max(np.prod(layer.output) for layer in layers) < training < everything
    assert predicting < training / 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hw", "100,200"], "multiples of 8"),
        (["--hw", "0,8"], "expected HEIGHT,WIDTH"),
        (["--hw", "96x160"], "expected HEIGHT,WIDTH"),
        (["--frame", "10000000,10000000"], "expected HEIGHT,WIDTH, 1 to 32768 each"),
        (["--symbol", f"{__file__}/g.json"], f"{__file__}"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    assert summary.main(["--config", str(CONFIGS / "toy.cfg"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
