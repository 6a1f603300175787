"""Batch-norm statistics: measured for folded weights, and checked against the images."""

import dataclasses

import cv2
import mxnet as mx
import numpy as np
import pytest
from test_convert_weights import error_of
from tiny_run import TINY, noise, random_params

from configs.datasets import load_dataset
from configs.schema import Config
from tools import convert_weights
from tools.weights.photographs import find_photographs, read_photographs
from train.network import build_symbol
from train.params import join_params, read_params, save_arrays
from train.statistics import MEAN, VARIANCE, are_folded, distance, measure, stored

CONFIG = dataclasses.replace(
    Config(), network=dataclasses.replace(TINY, bn_momentum=0.0, mean_rgb=(123.675, 116.28, 103.53))
)
DATASET = load_dataset("cityscapes")
SET = [
    f"--set=network.{key}={value}"
    for key, value in (
        ("depth", 26), ("width", 0.0625), ("stem", "3x3"), ("dilation", "1,2; 1,2"),
        ("aspp", "1,2"), ("cell", 2), ("bn_eps", 1e-5), ("mean_rgb", "123.675,116.28,103.53"),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Write pictures of much red, some green and little blue, so that RGB and BGR differ."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, hw in enumerate([(240, 300), (300, 240), (256, 256), (500, 260)]):
        image = noise(*hw, seed=number) * np.array([1.0, 0.6, 0.25])
        cv2.imwrite(str(folder / f"{number}.png"), image.astype(np.uint8)[:, :, ::-1])
    return folder


@pytest.fixture
def folded(tmp_path):
    """Save weights whose statistics are means of 0 and variances of 1."""
    args, auxs = random_params(build_symbol(CONFIG, DATASET))
    for name, value in auxs.items():
        value[:] = float(name.endswith(VARIANCE))
    save_arrays(tmp_path / "folded.params", join_params(args, auxs))
    return tmp_path / "folded.params"


def run(*arguments):
    assert convert_weights.main([str(argument) for argument in (*arguments, *SET)]) == 0


def scores(params, batch, learn_bn=False):
    """Output before the softmax, and the statistics after one pass."""
    symbol = build_symbol(CONFIG, DATASET, learn_bn=learn_bn)
    graph = mx.sym.Group([symbol.get_children()[0]])
    args, auxs = ({name: value.copy() for name, value in group.items()} for group in params)
    args = {name: args[name] for name in graph.list_arguments() if name != "data"}
    data = {"data": mx.nd.array(batch)}
    executor = graph.bind(mx.cpu(), {**args, **data}, grad_req="null", aux_states=auxs)
    output = executor.forward(is_train=learn_bn)[0].asnumpy()
    mx.nd.waitall()
    return output, stored(auxs)


def test_recalibrated_weights_are_the_same_function_with_the_statistics_that_mxnet_measures(
    folded, photographs, tmp_path, capsys
):
    out = tmp_path / "true.params"
    run("recalibrate", folded, "--images", photographs, "--out", out)
    assert "of 4 images" in capsys.readouterr().out
    before, after = read_params(folded), read_params(out)
    assert are_folded(stored(before[1])) and not are_folded(stored(after[1]))
    batch = np.concatenate(list(read_photographs(find_photographs(photographs, 300), CONFIG)))
    expected, _ = scores(before, batch)
    found, kept = scores(after, batch)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    # Learning with momentum 0 replaces the statistics by those of this one batch.
    _, learnt = scores(after, batch, learn_bn=True)
    for name, (mean, variance) in kept.items():
        scale = np.sqrt(variance.max())
        np.testing.assert_allclose(learnt[name][0], mean, atol=2e-3 * scale, err_msg=name)
        np.testing.assert_allclose(learnt[name][1], variance, rtol=1e-2, atol=1e-5 * scale**2)


def test_layers_that_the_network_lacks_stay_as_they_are(folded, photographs, tmp_path):
    out = tmp_path / "true.params"
    run("recalibrate", folded, "--images", photographs, "--out", out, "--set=network.stages=4")
    before, after = read_params(folded), read_params(out)
    for mine, theirs in zip(before, after):
        assert mine.keys() == theirs.keys()
        for name in mine:
            same = (mine[name] == theirs[name]).asnumpy().all()
            assert same == (name.startswith("conv5") or "/bn_" not in name), name


def test_statistics_are_those_of_numpy_over_batches_of_different_lengths():
    random = np.random.default_rng(0)
    values = random.normal(100, 3, (5, 3, 20, 12)).astype(np.float32)
    weight = random.standard_normal((2, 3, 1, 1)).astype(np.float32)
    graph = mx.sym.Convolution(
        mx.sym.Variable("data"), kernel=(1, 1), num_filter=2, no_bias=True, name="c"
    )
    params = {"c_weight": mx.nd.array(weight)}, {}
    found = measure(graph, params, ["c"], [values[:3], values[3:]], mx.cpu())
    outputs = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0].astype(np.float64), values)
    np.testing.assert_allclose(found["c"][0], outputs.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["c"][1], outputs.var((0, 2, 3)), rtol=1e-4)


def test_the_distance_of_two_normal_distributions():
    one = {"a": (np.zeros(2), np.ones(2))}
    assert distance(one, one, 0) == 0
    # Variances 1 and 4, one mean: the overlap is sqrt(2 * 2 / 5). Means 2 apart: exp(-4 / 8).
    wide = {"a": (np.zeros(2), np.full(2, 4.0))}
    assert distance(one, wide, 0) == pytest.approx(np.sqrt(1 - np.sqrt(0.8)))
    moved = {"a": (np.array([2.0, 0.0]), np.ones(2))}
    assert distance(one, moved, 0) == pytest.approx(np.sqrt(1 - np.exp(-0.5)) / 2)


def test_check_tells_order_scale_and_mean(folded, photographs, tmp_path, capsys):
    def said(file, code=0):
        command = ["check", file, "--images", photographs, *SET]
        assert convert_weights.main([str(argument) for argument in command]) == code
        text = capsys.readouterr().out
        assert text.count("\n") == 1
        return text

    assert "folded (0 and 1)" in said(folded) and "can't be told" in said(folded)
    out = tmp_path / "true.params"
    run("recalibrate", folded, "--images", photographs, "--out", out)
    capsys.readouterr()
    right = said(out)
    assert "statistics agree" in right and "RGB or BGR" not in right
    options = ["--images", str(photographs), *SET, "--set=network.mean_rgb=0,0,0"]
    assert convert_weights.main(["check", str(out), *options]) == 1
    text = capsys.readouterr().out
    assert "do NOT agree" in text and "with network.mean_rgb 122.675,116.669,104.008" in text
    args, auxs = read_params(out)
    first = "conv1_1_3x3_s2"
    weight = args[f"{first}_weight"].asnumpy()
    offset = np.einsum("ochw,c->o", weight, np.array(CONFIG.network.mean_rgb, np.float32))
    wrong = tmp_path / "wrong.params"
    for change, message in (
        ({"weight": weight[:, ::-1]}, "channels in the order BGR"),
        ({"weight": weight / 58}, "multiplied by 58"),
        ({"weight": weight * 58}, "divided by 58"),
        ({"mean": auxs[first + MEAN].asnumpy() + offset}, "without network.mean_rgb subtracted"),
    ):
        new_args, new_auxs = dict(args), dict(auxs)
        if "weight" in change:
            new_args[f"{first}_weight"] = mx.nd.array(change["weight"].copy())
        else:
            new_auxs[first + MEAN] = mx.nd.array(change["mean"])
        save_arrays(wrong, join_params(new_args, new_auxs))
        assert "do NOT agree" in (text := said(wrong, code=1)) and message in text, text


def test_a_channel_order_that_grey_images_can_not_tell_is_said(folded, tmp_path, capsys):
    grey = tmp_path / "grey"
    grey.mkdir()
    cv2.imwrite(str(grey / "0.png"), noise(256, 256)[:, :, :1].repeat(3, 2))
    options = ["--images", str(grey), *SET, "--set=network.mean_rgb=90,90,90"]  # the last wins
    out = str(tmp_path / "true.params")
    assert convert_weights.main(["recalibrate", str(folded), "--out", out, *options]) == 0
    assert convert_weights.main(["check", out, *options]) == 0
    assert "statistics agree" in (text := capsys.readouterr().out) and "RGB or BGR" in text


def test_mistakes_in_one_sentence(folded, photographs, tmp_path, capsys):
    error = error_of(capsys, "check", folded, "--images", photographs)
    assert "the network has" in error and "with --set" in error
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images" in error_of(capsys, "check", folded, "--images", empty, *SET)
    out = ["--out", tmp_path / "x.params"]
    assert "no images" in error_of(capsys, "recalibrate", folded, "--images", empty, *out, *SET)
    assert "no such parameter" in error_of(
        capsys, "check", tmp_path / "no.params", "--images", photographs, *SET
    )
    for count in (0, -3):
        asked = ["--images", photographs, f"--count={count}", *SET]
        for kind, *more in (["check"], ["recalibrate", *out]):
            error = error_of(capsys, kind, folded, *asked, *more)
            assert f"--count {count}: expected 1 or more" in error
    assert not (tmp_path / "x.params").exists()
