"""Damaged copies of images: each kind of damage checked by hand, and the command."""

import cv2
import numpy as np
import pytest

from tools import corrupt as command
from tools.scoring.corruptions import CORRUPTIONS, corrupt

HW = (37, 50)


def flat(value, hw=HW):
    return np.full((*hw, 3), value, np.uint8)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_size_and_type_stay_and_only_seed_and_name_draw(kind):
    image = np.random.default_rng(3).integers(0, 256, (*HW, 3), np.uint8)
    before = image.copy()
    damaged = corrupt(image, kind, "a", 0)
    assert damaged.shape == image.shape and damaged.dtype == np.uint8
    assert (image == before).all() and (damaged != image).any()
    assert (corrupt(image, kind, "a", 0) == damaged).all()


def test_brightness_takes_both_factors_and_saturates():
    values = {int(corrupt(flat(100), "brightness", str(n), 0)[0, 0, 0]) for n in range(20)}
    assert values == {60, 140}
    assert {int(corrupt(flat(250), "brightness", str(n), 0).max()) for n in range(20)} == {150, 255}


def test_contrast_keeps_the_mean_and_moves_the_rest():
    image = flat(80, (4, 6))
    image[:, 3:] = 120  # mean 100
    pairs = {tuple(corrupt(image, "contrast", str(n), 0)[0, ::5, 0]) for n in range(20)}
    assert pairs == {(88, 112), (72, 128)}


def test_blur_is_gaussian_with_a_deviation_of_one_and_a_half_pixels():
    image = flat(0)
    image[:, 25:] = 200  # a step: 200 * Phi((x + 1/2) / 1.5)
    row = corrupt(image, "blur", "a", 0)[18, :, 0]
    np.testing.assert_allclose(row[23:27], [31.7, 73.9, 126.1, 168.3], atol=2)


def test_noise_has_its_deviation_and_depends_on_name_and_seed():
    image = flat(128, (200, 300))
    noisy = corrupt(image, "noise", "a", 0)
    assert abs(noisy.astype(float).std() - 15) < 0.2 and abs(noisy.mean() - 128) < 0.2
    assert (noisy != corrupt(image, "noise", "b", 0)).any()
    assert (noisy != corrupt(image, "noise", "a", 1)).any()


def test_scale_leaves_what_is_smooth_and_loses_what_is_fine():
    board = flat(0, (36, 50))
    board[::2, ::2] = board[1::2, 1::2] = 200
    assert (corrupt(board, "scale", "a", 0) == 100).all()
    assert (corrupt(flat(77, (1, 1)), "scale", "a", 0) == 77).all()


def test_the_command_writes_each_kind_the_same_each_time(tmp_path, capsys):
    image = np.random.default_rng(3).integers(0, 256, (*HW, 3), np.uint8)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "deep" / "x.png"), image)
    for out in ("one", "two"):
        assert command.main([str(tmp_path / "in"), "--out", str(tmp_path / out)]) == 0
    for kind in CORRUPTIONS:
        one, two = (cv2.imread(str(tmp_path / out / kind / "x.png")) for out in ("one", "two"))
        assert (one == two).all() and (one == corrupt(image, kind, "x", 0)).all()
    assert command.main([str(tmp_path / "no"), "--out", str(tmp_path / "one")]) == 2
    assert "no such image or folder" in capsys.readouterr().err


def test_no_result_replaces_an_image(tmp_path, capsys):
    """A folder of damage may lie beside an image; no result is written where an image is."""
    for name, value in (("data/x.png", 10), ("data/noise/y.png", 20)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), flat(value))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for out in ("data", "link"):
        for source in ("data", "data/noise"):
            assert command.main([str(tmp_path / source), "--out", str(tmp_path / out)]) == 2
            error = capsys.readouterr().err
            assert f"{tmp_path / 'data/noise/y.png'}: a result would replace it" in error
            assert error.count("\n") == 1
    assert sorted(file.name for file in (tmp_path / "data").rglob("*")) == [
        "noise", "x.png", "y.png",
    ]  # fmt: skip
    assert (cv2.imread(str(tmp_path / "data/noise/y.png")) == 20).all()
    assert command.main([str(tmp_path / "data/x.png"), "--out", str(tmp_path / "data")]) == 0
    assert (cv2.imread(str(tmp_path / "data/x.png")) == 10).all()
