"""Patch plans against the numbers of the paper."""

import numpy as np
import pytest

from data_iter.patches import plan


def covered(patches, hw):
    seen = np.zeros(hw, bool)
    for top, left, height, width in patches:
        seen[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    return seen


def test_seven_fold_centres_are_those_of_the_paper():
    patches = plan("7fold", (1024, 2048), (880, 880))
    centres = [(p.top + p.height // 2, p.left + p.width // 2) for p in patches]
    assert centres == [(512, 256 * k) for k in range(1, 8)]
    assert {(p.height, p.width) for p in patches} == {(880 + 160, 880 + 160)}


def test_twelve_fold_stays_inside_and_overlaps():
    patches = plan("12fold", (1024, 2048), (544, 544))
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
    assert covered(plan(kind, hw, crop, (320, 320), 100), hw).all()


def test_grid_of_a_kitti_frame():
    patches = plan("grid", (375, 1242), (320, 320), (320, 320), 100)
    assert sorted({p.top for p in patches}) == [0, 55]
    assert sorted({p.left for p in patches}) == [*range(0, 1000, 100)[:10], 922]
    assert len(set(patches)) == len(patches) == 2 * 11


def test_a_grid_on_an_image_smaller_than_its_patch_is_one_patch():
    assert plan("grid", (200, 300), (320, 320), (320, 320), 100) == [(0, 0, 320, 320)]
