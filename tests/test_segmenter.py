"""Segmenters give probabilities and labels of every pixel, for images of any size."""

import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import psutil
import pytest
from tiny_run import make_run, noise

from configs.schema import Network
from train.machine import PROJECT
from train.network import build_symbol, cell_layout
from train.segmenter import PixelSegmenter, Segmenter, upsample

SIZES = [(37, 53), (1, 1), (8, 8), (360, 480), (64, 41)]


class FirstPixel(PixelSegmenter):
    """A stand-in network that returns, for each cell, red and green of the cell's first pixel."""

    def forward(self, data):
        cell, block = cell_layout(self.network)
        _, _, height, width = data.shape
        assert height % 8 == width % 8 == 0
        packed = np.empty((2, block, block, height // 8, width // 8), np.float32)
        for row in range(block):
            for column in range(block):
                packed[:, row, column] = data[0, :2, row * cell :: 8, column * cell :: 8]
        return packed.reshape(2, -1)


@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("cell", [1, 2, 4])
def test_each_pixel_reads_its_place_among_the_cells(cell, hw):
    network = Network(cell=cell, mean_rgb=(10.0, 20.0, 30.0))
    image = noise(*hw)
    found = FirstPixel(network).probabilities(image)
    centred = image[:, :, :2].astype(float) - (10, 20)
    for y in {0, 1, hw[0] // 2, hw[0] - 1} & set(range(hw[0])):
        for x in {0, 1, hw[1] // 3, hw[1] - 1} & set(range(hw[1])):
            y0, x0 = y // cell * cell, x // cell * cell
            y1 = y0 + cell if y0 + cell < hw[0] else y0  # beyond the last cell: repeated
            x1 = x0 + cell if x0 + cell < hw[1] else x0
            v, h = (y - y0) / cell, (x - x0) / cell
            expected = (1 - v) * ((1 - h) * centred[y0, x0] + h * centred[y0, x1]) + v * (
                (1 - h) * centred[y1, x0] + h * centred[y1, x1]
            )
            np.testing.assert_allclose(found[:, y, x], expected, atol=1e-3)


@pytest.mark.parametrize("hw", SIZES)
def test_labels_are_the_argmax_of_the_probabilities(hw):
    segmenter = FirstPixel(Network(cell=2))
    image = noise(*hw)
    image[:3, :3, :2] = 7 + np.array([122.675 - 116.669, 0]).astype(np.uint8)  # near ties
    labels = segmenter.labels(image)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, segmenter.probabilities(image).argmax(0))


class TwoCells(PixelSegmenter):
    """Predicts (0.999, 0.001) for an 8x16 image's left feature pixel, (0.3, 0.7) for its right."""

    def forward(self, data):
        assert data.shape == (1, 3, 8, 16)
        return np.array([[0.999, 0.3], [0.001, 0.7]], np.float32)


def test_the_baseline_interpolates_scores_as_deeplab_does():
    segmenter = TwoCells(Network(decoder="bilinear"))
    image = noise(8, 16)
    # 6 of 8 pixels from the left cell: probabilities would give 0.25 * 0.999 + 0.75 * 0.3 < 1/2,
    # the difference of the scores is 0.25 * ln(999) + 0.75 * ln(3 / 7) = 1.0912 > 0.
    assert segmenter.labels(image).tolist() == [[0] * 8 + [1] * 8] * 8
    found = segmenter.probabilities(image)
    np.testing.assert_allclose(found[0, :, 6], 1 / (1 + np.exp(-1.0912)), atol=1e-4)
    np.testing.assert_allclose(found[:, :, 0], [[0.999] * 8, [0.001] * 8], atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    duc = [*TwoCells(Network(cell=8)).at_pixels(found[:, ::8, ::8], (8, 16))]
    np.testing.assert_allclose(duc[0][:, 6], 0.25 * 0.999 + 0.75 * 0.3, atol=1e-4)


def test_certain_cells_that_disagree_still_give_probabilities():
    cells = np.zeros((3, 1, 2), np.float32)
    cells[0, 0, 0] = cells[1, 0, 1] = 1
    found = np.stack([*TwoCells(Network(decoder="bilinear")).at_pixels(cells, (8, 16))])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, :, 4], [[0.5] * 8, [0.5] * 8, [0] * 8], atol=1e-6)


def test_upsampling_from_a_resized_image_keeps_pixel_centres():
    # A ramp over an image of twice the size: pixel p of the result lies at 2 p + 1/2 there.
    ramp = np.tile(np.arange(0, 64, 4, dtype=np.float32), (6, 1))  # cells of side 4
    found = upsample(ramp, 4, (12, 30), 2.0)
    np.testing.assert_allclose(found[5], 2 * np.arange(30) + 0.5, atol=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("segmenter") / "run")


def segmenter_of(run):
    config, dataset = run.load()
    symbol = build_symbol(config, dataset)
    return Segmenter(symbol, *run.load_params(), config.network, mx.cpu())


def plain_forward(run, image):
    """The network on a padded image, with no executor kept and nothing fused or folded."""
    config, dataset = run.load()
    symbol = build_symbol(config, dataset)
    height, width = (-(-side // 8) * 8 for side in image.shape[:2])
    data = np.zeros((1, 3, height, width), np.float32)
    centred = (image - np.array(config.network.mean_rgb)).transpose(2, 0, 1)
    data[0, :, : image.shape[0], : image.shape[1]] = centred
    args, auxs = run.load_params()
    inputs = {
        "data": mx.nd.array(data),
        "seg_loss_label": mx.nd.zeros((1, 16 * height * width // 64)),
    }
    executor = symbol.bind(mx.cpu(), {**args, **inputs}, grad_req="null", aux_states=auxs)
    outputs = executor.forward(is_train=False)
    scores = outputs[0].asnumpy()[0].reshape(dataset.num_classes, 4, 4, height // 8, width // 8)
    cells = np.zeros((dataset.num_classes, height // 2, width // 2), np.float32)
    for row in range(4):
        for column in range(4):
            cells[:, row::4, column::4] = scores[:, row, column]
    return cells[:, : (image.shape[0] + 1) // 2, : (image.shape[1] + 1) // 2]


def test_many_sizes_in_any_order_give_what_each_gives_alone(run):
    segmenter = segmenter_of(run)
    sizes = [(40, 64), (37, 53), (96, 80), (1, 1), (40, 64), (16, 128), (8, 8), (37, 53), (96, 80)]
    kept = []
    for number, hw in enumerate(sizes):
        image = noise(*hw, seed=number)
        kept.append((image, segmenter.cell_probabilities(image)))
    for image, cells in kept:  # also: no result was overwritten by a later one
        np.testing.assert_allclose(cells, plain_forward(run, image), atol=2e-5)


def test_memory_stays_over_many_sizes(run):
    segmenter = segmenter_of(run)
    after = []
    for number in range(60):  # a network bound to one size takes some 5 MB
        segmenter.labels(np.zeros((24 + 8 * (number % 8), 24 + 8 * (number // 8), 3), np.uint8))
        after.append(psutil.Process().memory_info().rss)
    assert after[-1] - after[19] < 50 << 20


def test_probabilities_sum_to_one(run):
    probabilities = segmenter_of(run).probabilities(noise(45, 31))
    assert probabilities.shape == (11, 45, 31) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert probabilities.std() > 0.01  # the output is not constant


@pytest.mark.parametrize(("decoder", "cells_hw"), [("bilinear", (5, 7)), ("deconv", (37, 53))])
def test_other_decoders_have_cells_of_their_own(decoder, cells_hw, tmp_path):
    segmenter = segmenter_of(make_run(tmp_path, decoder=decoder, cell=1))
    image = noise(37, 53)
    assert segmenter.cell_probabilities(image).shape == (11, *cells_hw)
    assert segmenter.probabilities(image).shape == (11, 37, 53)


FORWARDS = """
import pathlib, sys
import numpy as np
import tools.inference.run, tools.inference.backends
segmenter, _ = tools.inference.backends.open_segmenter(
    tools.inference.run.read_run(pathlib.Path(sys.argv[1])), "mxnet"
)
data = np.zeros((1, 3, 32, 48), np.float32)
for _ in range(int(sys.argv[2])):
    segmenter.forward(data)
"""


@pytest.mark.slow
def test_weights_are_laid_out_once_and_not_for_every_image(tmp_path):
    # oneDNN prints each reordering with its shape; only those of weights end in 3x3.
    run = make_run(tmp_path / "run")

    def reordered(forwards):
        ran = subprocess.run(
            [sys.executable, "-c", FORWARDS, str(run.path), str(forwards)],
            env={**os.environ, "MKLDNN_VERBOSE": "1", "DNNL_VERBOSE": "1"},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in ran.stdout.splitlines() if ",reorder," in line]
        return sum("x3x3," in line for line in lines)

    assert reordered(4) == reordered(1) > 0
