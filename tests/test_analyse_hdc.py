"""The coverage arithmetic against gradients of real MXNet graphs, and the command's report."""

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from symbols import hdc
from symbols.resnet import DEPTHS, Layers, bottleneck
from tools import analyse_hdc


def gradient_of_centre(symbol, channels, hw, skip=()):
    """Tell which input pixels (H, W) influence the output's centre; all weights are positive."""
    executor = symbol.simple_bind(mx.cpu(), data=(1, channels, *hw), grad_req="write")
    for name, array in executor.arg_dict.items():
        array[:] = 1 / np.prod(array.shape[1:]) if name.endswith("weight") else 1.0
        if name.endswith("beta"):
            array[:] = 0
    for name, array in executor.aux_dict.items():
        array[:] = 1.0 if name.endswith("var") else 0.0
    output = executor.forward(is_train=True)[0]
    head = np.zeros(output.shape, np.float32)
    head[0, :, hw[0] // 2, hw[1] // 2] = 1
    executor.backward(mx.nd.array(head))
    return executor.grad_dict["data"].asnumpy()[0].any(axis=0)


def framed(covered, hw):
    """Lay the coverage over the middle of an odd-sized (H, W) input."""
    expected = np.zeros(hw, bool)
    top, left = (hw[0] - len(covered)) // 2, (hw[1] - len(covered)) // 2
    expected[top : top + len(covered), left : left + len(covered)] = covered
    return expected


STACKS = {
    "Figure 2 (a)": ((2, 2, 2), 3),
    "Figure 2 (b)": ((1, 2, 3), 3),
    "the text's bad example": ((1, 2, 9), 3),
    "5x5 kernels": ((1, 3), 5),
    "ResNet-101, plain": (sum(hdc.schedule("plain", DEPTHS[101].units), ()), 3),
    "ResNet-101, Dilation-bigger": (sum(hdc.schedule("bigger", DEPTHS[101].units), ()), 3),
}


@pytest.mark.parametrize("rates, kernel", STACKS.values(), ids=STACKS)
def test_coverage_is_the_gradient_of_stacked_convolutions(rates, kernel):
    symbol = mx.sym.Variable("data")
    for rate in rates:
        symbol = mx.sym.Convolution(
            symbol,
            num_filter=1,
            kernel=(kernel, kernel),
            dilate=(rate, rate),
            pad=(rate * (kernel // 2),) * 2,
            no_bias=True,
        )
    covered = hdc.coverage(rates, kernel)
    hw = (len(covered) + 4, len(covered) + 10)
    np.testing.assert_array_equal(gradient_of_centre(symbol, 1, hw), framed(covered, hw))


@pytest.mark.parametrize("dilation", ["plain", "rf", "1,2; 7"])
def test_coverage_is_the_gradient_of_the_networks_own_blocks(dilation):
    res4, res5 = hdc.schedule(dilation, DEPTHS[50].units)
    body = mx.sym.Variable("data")
    for unit, rate in enumerate(res4 + res5):
        body = bottleneck(
            Layers(1e-5, 0.9, False), body, 1, f"unit{unit}", 1, rate, unit == 0, "1x1"
        )
    covered = hdc.coverage(res4 + res5)
    hw = (len(covered) + 2, len(covered) + 6)
    np.testing.assert_array_equal(gradient_of_centre(body, 4, hw), framed(covered, hw))


def report(capsys, *arguments):
    assert analyse_hdc.main([str(argument) for argument in arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_report_of_dilation_bigger(capsys, tmp_path):
    text = report(capsys, "bigger", "--out", tmp_path / "b.png")
    assert "26 dilated 3x3 convolutions" in text
    assert "│ res4 │ 1 2 5 9 │ 5 │ 1 2 5 9 │ yes │ 100.0% │" in text
    assert "│ res5 │ 5 9 17 │ 1 │ 5 9 17 │ no │ 18.4% │" in text  # 27 of 63 squared, by hand
    assert "│ res4 + res5 │ 1 │ 3 │ yes │ 249 x 249 │ 100.0% │" in text
    assert "increase: 248" in text and "Table 2 prints 256, which differs" in text
    assert "Table 2 prints 116, which agrees" in report(capsys, "rf")
    assert "Table 2" not in report(capsys, "rf", "--depth", 152)


def test_report_of_bare_layers_and_of_all_schedules(capsys):
    assert "│ layers │ 1 2 9 │ 1 │ 3 5 9 │ no │ 70.6% │" in report(capsys, "1,2,9")
    text = report(capsys)
    assert "│ plain │ 2 x23; 4 x3 │ 117 │ 116 │ - │ 25.4% │" in text
    assert "│ conv │ (2 1)x11 2; 2 1 2 │ 81 │ 80 │ 88 │ 100.0% │" in text


def test_a_config_brings_depth_and_downsample(capsys, tmp_path):
    config = tmp_path / "mine.cfg"
    config.write_text("[network]\ndepth = 50\npool_pad = 1\ndownsample = 4\ndilation = rf\n")
    text = report(capsys, "--config", config)
    assert "rf, ResNet-50, downsample 4: 13 dilated" in text
    assert "│ res3 │ 2 x4 │" in text and "│ res4 │ 2 4 6 │ 2 │" in text and "│ 6 8 10 │" in text
    assert "Table 2" not in text


def test_the_picture_is_figure_2(tmp_path, capsys):
    """Its last panel marks the centre in red, and the covered pixels in blue."""
    report(capsys, "1,2,2", "--out", tmp_path / "f.png")
    pixels = np.array(Image.open(tmp_path / "f.png"))
    last = pixels[30:290, 20 + 2 * 280 : 280 + 2 * 280]
    cell = 260 // 11
    samples = last[(260 - 11 * cell) // 2 + cell // 2 :: cell][:11]
    samples = samples[:, (260 - 11 * cell) // 2 + cell // 2 :: cell][:, :11]
    blue, red = (samples == analyse_hdc.BLUE).all(-1), (samples == analyse_hdc.RED).all(-1)
    assert red.sum() == 1 and red[5, 5]
    np.testing.assert_array_equal(blue | red, hdc.coverage((1, 2, 2)))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["biggr"], "did you mean bigger?"),
        (["0,1"], "each at least 1"),
        (["1,2;9999"], "expected at most 4096"),
        (["bigger", "--config", "x.cfg"], "not both"),
        (["--out", "x.png"], "--out needs one schedule"),
        (["bigger", "--out", f"{__file__}/x.png"], f"{__file__}"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    assert analyse_hdc.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
