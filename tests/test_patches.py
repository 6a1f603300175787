"""Patch plans against the numbers of the paper."""

import numpy as np
import pytest

from data_iter.patches import plan
from data_iter.transforms import draw_crop

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


def covered(patches, hw, crop):
    """The pixels that a crop at scale 1 can reach."""
    seen = np.zeros(hw, bool)
    for patch in patches:
        (top, bottom), (left, right) = patch.corners(1, crop)
        bottom, right = bottom + crop[0], right + crop[1]
        seen[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return seen


def test_seven_fold_centres_are_those_of_the_paper():
    patches = plan("7fold", (1024, 2048))
    assert patches == [(512, 256 * k, 80) for k in range(1, 8)]
    rows, columns = patches[1].corners(1, (880, 800))
    assert (rows, columns) == ((512 - 440 - 80, 512 - 440 + 80), (512 - 400 - 80, 512 - 400 + 80))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("crop", "jitter"), [((880, 720), 80), ((800, 800), 120)])
def test_seven_fold_jitter_is_the_same_in_source_pixels_at_every_scale(crop, jitter, scale):
    patch = plan("7fold", (1024, 2048), jitter=jitter)[2]
    drawn = [
        draw_crop(np.random.default_rng(seed), patch, crop, [scale], mirror=False)
        for seed in range(3000)
    ]
    for corners, side, centre in (
        ([d.top for d in drawn], crop[0], 512),
        ([d.left for d in drawn], crop[1], 768),
    ):
        offset = (np.array(corners) + side / 2) / scale - centre
        assert np.abs(offset).max() <= jitter
        assert offset.min() <= 2 - jitter and offset.max() >= jitter - 2
        assert abs(offset.mean()) < 5  # evenly to either side


@pytest.mark.parametrize(
    ("kind", "crop", "expected"),
    [
        ("12fold", (544, 400), [(288, 0), (75, 267), (256, 400), (365, 480), (437, 533)]),
        ("12fold", (544, 544), [(288,) * 2, (75,) * 2, (256,) * 2, (365,) * 2, (437,) * 2]),
        ("grid", (320, 320), [(320,) * 2, (107,) * 2, (0,) * 2, (64,) * 2, (107,) * 2]),
        ("image", (880, 880), [(736, 288), (149, 875), (144, 1168), (320, 1344), (437, 1461)]),
        ("7fold", (880, 880), [(160, 160)] * 5),
    ],
)
def test_freedom_of_a_crop_s_centre_in_source_pixels(kind, crop, expected):
    """By hand: |side of the region - crop / scale|; for 7fold, twice the jitter."""
    for scale, freedom in zip(SCALES, expected):
        for patch in plan(kind, (1024, 2048), (320, 320)):
            ranges = patch.corners(scale, crop)
            found = [(last - first) / scale for first, last in ranges]
            assert found == pytest.approx(freedom, abs=2)


def test_twelve_fold_stays_inside_and_overlaps():
    patches = plan("12fold", (1024, 2048))
    assert len(patches) == 12
    assert {(p.height, p.width) for p in patches} == {(800, 800)}
    assert {p.top for p in patches} == {0, 224}
    lefts = sorted({p.left for p in patches})
    assert lefts[0] == 0
    assert lefts[-1] == 2048 - 800
    assert max(np.diff(lefts)) < 800


@pytest.mark.parametrize(
    ("kind", "hw", "crop"),
    [
        ("12fold", (1024, 2048), (544, 544)),
        ("7fold", (1024, 2048), (880, 880)),
        ("grid", (375, 1242), (320, 320)),
        ("grid", (370, 1226), (320, 320)),
        ("image", (360, 480), (320, 320)),
    ],
)
def test_every_pixel_is_covered(kind, hw, crop):
    assert covered(plan(kind, hw, (320, 320), 100), hw, crop).all()


def test_grid_of_a_kitti_frame():
    patches = plan("grid", (375, 1242), (320, 320), 100)
    assert sorted({p.top for p in patches}) == [0, 55]
    assert sorted({p.left for p in patches}) == [*range(0, 1000, 100)[:10], 922]
    assert len(set(patches)) == len(patches) == 2 * 11


def test_the_stride_alone_of_a_kitti_frame():
    patches = plan("stride", (375, 1242), (320, 320), 100)
    assert patches == [(0, 100 * column, 320, 320) for column in range(10)]
    assert plan("stride", (370, 420), (320, 320), 50) == [
        (top, left, 320, 320) for top in (0, 50) for left in (0, 50, 100)
    ]


@pytest.mark.parametrize("kind", ["grid", "stride"])
def test_a_grid_on_an_image_smaller_than_its_patch_is_one_patch(kind):
    assert plan(kind, (200, 300), (320, 320), 100) == [(0, 0, 320, 320)]
