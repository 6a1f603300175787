"""Resized windows equal parts of the resized image; crops, colours, rotation and blur by hand."""

import cv2
import numpy as np
import pytest

from data_iter.patches import Patch
from data_iter.transforms import (
    change_appearance,
    draw_angle,
    draw_blur,
    draw_colours,
    draw_crop,
    enclosing,
    find_window,
    resize_window,
)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 1.5, 0.7, 1.1, 0.123456])
@pytest.mark.parametrize(
    "corner", [(0, 0), (30, 60), (33, 140), (7, 13), (-20, -9), (61, 118), (400, 10)]
)
def test_window_equals_the_part_of_the_resized_whole(scale, corner):
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (123, 217, 3), np.uint8)
    label = random.integers(0, 34, (123, 217), np.uint8)
    top, left = corner
    for pixels, how, tolerance in ((image, cv2.INTER_LINEAR, 1), (label, cv2.INTER_NEAREST, 0)):
        whole = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
        framed = np.full((900, 900, *pixels.shape[2:]), 99, np.uint8)
        framed[300 : 300 + whole.shape[0], 300 : 300 + whole.shape[1]] = whole
        expected = framed[300 + top : 300 + top + 45, 300 + left : 300 + left + 67]

        window = find_window(pixels.shape[:2], scale, top, left, (45, 67))
        part = resize_window(pixels[window.rows, window.columns], window, how)
        y, x = window.offset
        found = np.full_like(expected, 99)
        found[y : y + part.shape[0], x : x + part.shape[1]] = part
        assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(("scale", "side"), [(0.35, 1010), (0.65, 2048), (1.3, 2048)])
def test_scales_that_are_no_binary_fractions_give_the_whole_s_pixels(scale, side):
    """The pixels must not depend on where the window begins, although positions are rounded."""
    label = np.random.default_rng(4).integers(0, 250, (8, side), np.uint8)
    image = cv2.merge([label, label, label])
    for pixels, how, tolerance in ((image, cv2.INTER_LINEAR, 1), (label, cv2.INTER_NEAREST, 0)):
        whole = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
        for left in range(0, whole.shape[1], 7):
            window = find_window((8, side), scale, 0, left, (2, 216))
            part = resize_window(pixels[window.rows, window.columns], window, how)
            expected = whole[:2, left : left + 216]
            assert part.shape == expected.shape
            assert np.abs(part.astype(int) - expected).max() <= tolerance


def test_crops_stay_inside_a_patch_that_holds_them():
    patch = Patch(top=100, left=50, height=80, width=90)
    corners = set()
    for seed in range(400):
        crop = draw_crop(np.random.default_rng(seed), patch, (70, 88), [1.0], mirror=True)
        assert 100 <= crop.top <= 110
        assert 50 <= crop.left <= 52
        corners.add((crop.top, crop.left))
    assert len(corners) == 11 * 3  # every position occurs


def test_a_patch_smaller_than_the_crop_stays_whole_inside_it():
    """Rows 10 to 50 and columns 20 to 50 of the image, resized; the crop is 64x48."""
    ends = {0.5: (5, 25, 10, 25), 1.5: (15, 75, 30, 75)}
    seen = set()
    for seed in range(50):
        crop = draw_crop(
            np.random.default_rng(seed), Patch(10, 20, 40, 30), (64, 48), [0.5, 1.5], mirror=False
        )
        assert not crop.mirror
        top, bottom, left, right = ends[crop.scale]
        assert crop.top <= top and bottom <= crop.top + 64
        assert crop.left <= left and right <= crop.left + 48
        seen.add(crop.scale)
    assert seen == {0.5, 1.5}


class Fixed:
    """Stands for a generator: every draw is the upper bound."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, float(high))


PIXELS = np.array([[[10, 20, 30], [200, 100, 50], [128, 128, 128]]], np.uint8)  # BGR


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        ((0, 0, 0, 0), PIXELS[0]),
        ((0.5, 0, 0, 0), [[15, 30, 45], [255, 150, 75], [192, 192, 192]]),
        ((0, 1, 0, 0), [[0, 0, 0], [255, 72, 0], [128, 128, 128]]),  # 2 v - 127.5
        # luma .114 b + .587 g + .299 r = 21.85 and 96.45; twice the distance from it
        ((0, 0, 1, 0), [[0, 18, 38], [255, 104, 4], [128, 128, 128]]),
        # A third of the circle, 2/3 of 180 degrees: the channels change places.
        ((0, 0, 0, 2 / 3), [[30, 10, 20], [50, 200, 100], [128, 128, 128]]),
    ],
)
def test_colours_by_hand(jitter, expected):
    found = change_appearance(PIXELS, draw_colours(Fixed(), jitter), 0.0)[0]
    turned = [np.roll(np.asarray(expected), shift, axis=1) for shift in (0, 1)]
    allowed = turned if jitter[3] else turned[:1]  # either direction is right
    assert min(np.abs(found.astype(int) - e).max() for e in allowed) <= 1


@pytest.mark.parametrize("angle", [0, 5, -30, 45, 90, 137, 180])
def test_the_window_of_a_turned_crop_holds_its_corners_and_not_much_more(angle):
    height, width = enclosing((48, 91), angle)
    assert (height - 48) % 2 == (width - 91) % 2 == 0  # the same centre
    corners = np.array([[24, 45.5], [24, -45.5]])
    turned = np.radians(angle)
    turn = np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    reach = np.abs(corners @ turn).max(axis=0)
    assert (reach <= np.array([height, width]) / 2 + 1e-9).all()
    assert (np.array([height, width]) / 2 < np.maximum(reach, (24, 45.5)) + 1).all()
    assert abs(draw_angle(Fixed(), 7.5)) == 7.5


def test_blur_spreads_a_point_and_keeps_its_sum():
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    found = change_appearance(image, None, draw_blur(Fixed(), 1.0))
    assert abs(found[15, 15, 0] - 255 / (2 * np.pi)) < 2
    assert abs(int(found[:, :, 0].sum()) - 255) < 20
    assert change_appearance(image, None, 0.0) is image
