"""Averaging over scales, mirror images and tiles, against a separate computation of each."""

import cv2
import numpy as np
import pytest
from tiny_run import TINY, make_run, noise

from configs.errors import ConfigError
from configs.schema import Network
from symbols import get_symbol
from symbols.receptive_field import receptive_radius
from tools.inference.averaging import Averager, spans
from tools.inference.predictor import load
from train.segmenter import PixelSegmenter


class Brightness(PixelSegmenter):
    """Class 1's probability is the pixel's red / 255: linear, so resizing can be predicted."""

    def __init__(self):
        super().__init__(Network(cell=1, mean_rgb=(0.0, 0.0, 0.0)))
        self.seen = []

    def forward(self, data):
        _, _, height, width = data.shape
        self.seen.append((height, width))
        red = data[0, 0].reshape(height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2) / 255
        return np.stack([1 - red, red]).reshape(2, -1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    # Its receptive field is small enough for the small tiles of these tests.
    run = make_run(tmp_path_factory.mktemp("tiles") / "run", dilation="none", aspp=(1,))
    return load(run.path).segmenter


def ramp(height, width):
    """An image that bilinear resizing keeps, except at its borders: linear in both directions."""
    y, x = np.mgrid[:height, :width]
    return np.repeat((2 * x + y)[:, :, None], 3, 2).astype(np.uint8)


def test_scales_are_resized_to_and_averaged_back():
    segmenter = Brightness()
    image = ramp(40, 64)
    found = Averager(segmenter, scales=(0.5, 1, 2)).probabilities(image)
    assert segmenter.seen == [(24, 32), (40, 64), (80, 128)]
    inner = (slice(2, -2), slice(2, -2))
    expected = image[:, :, 0] / 255
    np.testing.assert_allclose(found[1][inner], expected[inner], atol=1.1 / 255)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_one_scale_equals_resizing_by_hand():
    image = noise(37, 53)
    found = Averager(Brightness(), scales=(1.5,)).probabilities(image)
    larger = cv2.resize(image, None, fx=1.5, fy=1.5)  # OpenCV keeps pixel centres
    back = np.empty((37, 53))
    for y in range(37):
        for x in range(53):
            v = min(max((y + 0.5) * 1.5 - 0.5, 0), larger.shape[0] - 1)
            h = min(max((x + 0.5) * 1.5 - 0.5, 0), larger.shape[1] - 1)
            v0, h0 = int(v), int(h)
            v1, h1 = min(v0 + 1, larger.shape[0] - 1), min(h0 + 1, larger.shape[1] - 1)
            r = larger[:, :, 0].astype(float) / 255
            top = (1 - h + h0) * r[v0, h0] + (h - h0) * r[v0, h1]
            bottom = (1 - h + h0) * r[v1, h0] + (h - h0) * r[v1, h1]
            back[y, x] = (1 - v + v0) * top + (v - v0) * bottom
    # warpAffine places samples to 1/32 pixel, and this picture is noise of up to 56/255.
    np.testing.assert_allclose(found[1], back, atol=0.03)
    assert np.abs(found[1] - back).mean() < 0.002


def test_flip_averages_with_the_mirrored_answer(tiny):
    image = noise(37, 53)
    plain = tiny.probabilities(image)
    mirrored = tiny.probabilities(image[:, ::-1].copy())[:, :, ::-1]
    assert np.abs(plain - mirrored).max() > 0.01
    averager = Averager(tiny, flip=True)
    expected = (plain + mirrored) / 2
    np.testing.assert_allclose(averager.probabilities(image), expected, atol=1e-6)
    np.testing.assert_array_equal(averager.labels(image), expected.argmax(0))


def test_nothing_outside_the_receptive_radius_matters(tiny):
    radius = tiny.receptive_radius
    image = noise(3 * radius, 24)
    changed = image.copy()
    changed[0] = 255 - changed[0]
    moved = np.abs(tiny.probabilities(image) - tiny.probabilities(changed)).max((0, 2))
    assert moved[0] > 1e-4
    assert moved[radius + 1 :].max() == 0


@pytest.mark.parametrize(("scales", "wide"), [((1.0,), False), ((0.75, 1.0), True)])
def test_tiles_equal_the_whole_image(tiny, scales, wide):
    averager = Averager(tiny, scales)
    overlap = -(-2 * averager.radius // 32) * 32
    hw = (2 * overlap + 37, 43)
    image = noise(*(hw[::-1] if wide else hw))
    tile = (overlap + 32, overlap + 64)
    halved = Averager(tiny, scales, tile_hw=tile)
    assert halved.overlap < overlap and not halved.exact  # at most half a tile
    tiled = Averager(tiny, scales, False, tile, overlap)
    assert tiled.exact
    whole = averager.probabilities(image)
    np.testing.assert_allclose(tiled.probabilities(image), whole, atol=1e-4)
    assert (tiled.labels(image) == whole.argmax(0)).mean() > 0.9999
    assert np.abs(halved.probabilities(image) - whole).max() < 0.1  # close, so nothing is misplaced


@pytest.mark.parametrize("width", [509, 487, 480])  # 509, 487: multiples of neither 8 nor 32
def test_mirrored_tiles_equal_the_mirrored_whole_image(tiny, width):
    overlap = -(-2 * tiny.receptive_radius // 32) * 32
    image = noise(19, width)
    whole = Averager(tiny, flip=True)
    tiled = Averager(tiny, (1.0,), True, (overlap + 32, overlap + 32), overlap)
    assert tiled.exact
    expected = whole.probabilities(image)
    np.testing.assert_allclose(tiled.probabilities(image), expected, atol=1e-4)
    assert (tiled.labels(image) == whole.labels(image)).mean() > 0.9999


def test_tiles_at_odd_scales_are_not_called_exact(tiny):
    assert Averager(tiny, (0.5, 1.25), tile_hw=(1024, 1024)).exact
    assert not Averager(tiny, (0.5, 1.1), tile_hw=(1024, 1024)).exact
    assert Averager(tiny, (0.5, 1.1)).exact  # no tiles


def test_spans_by_hand():
    assert spans(100, 128, 32) == [(slice(0, 100), slice(0, 100), slice(0, 100))]
    assert spans(250, 128, 32) == [
        (slice(0, 128), slice(0, 112), slice(0, 112)),
        (slice(96, 224), slice(16, 112), slice(112, 208)),
        (slice(192, 250), slice(16, 58), slice(208, 250)),
    ]


def test_settings_that_make_no_sense(tiny):
    """Each is refused with the option's name."""
    for arguments, message in (
        ({"scales": ()}, "--scales"),
        ({"scales": (0.0, 1.0)}, "--scales"),
        ({"tile_hw": (100, 128)}, "--tile: expected multiples of 32, found 100"),
        ({"tile_hw": (128, 128), "overlap": 33}, "--overlap: expected multiples of 32"),
        ({"tile_hw": (128, 64), "overlap": 64}, "leaves nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            Averager(tiny, **arguments)


def test_radius_of_the_tiny_network_by_hand():
    # stem 5, pool 4, res2 2 x 4, res3 2 x 8, res4 (1 + 2) x 8, res5 the same, ASPP 2 x 8, cell 16
    symbol = get_symbol(classes=2, head="x", **TINY.graph_options)
    assert receptive_radius(symbol) == 5 + 4 + 8 + 16 + 24 + 24 + 16 + 16
