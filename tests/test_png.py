"""The upper rows of a PNG against OpenCV's decoding of the whole."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_iter.files import read_bgr
from data_iter.png import upper_rows

HW = (211, 173)


def scene(channels):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (9, 7, channels), np.uint8)
    smooth = cv2.resize(coarse, HW[::-1], interpolation=cv2.INTER_CUBIC).reshape(*HW, channels)
    noisy = smooth + random.normal(0, 3, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).squeeze()


def decode(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("writer", ["opencv", "pillow", "stored"])
@pytest.mark.parametrize("rows", [0, 1, 100, 211, 999])
def test_upper_rows_are_those_of_the_whole(tmp_path, channels, writer, rows):
    file = tmp_path / "x.png"
    if writer == "pillow":  # adaptive filters, several IDAT chunks
        Image.fromarray(scene(channels)).save(file)
    else:
        level = [] if writer == "opencv" else [cv2.IMWRITE_PNG_COMPRESSION, 0]
        cv2.imwrite(str(file), scene(channels), level)
    upper = decode(upper_rows(file.read_bytes(), rows))
    count = max(1, min(rows, HW[0]))
    assert upper.shape == (count, HW[1], 3)
    np.testing.assert_array_equal(upper, cv2.imread(str(file))[:count])
    np.testing.assert_array_equal(read_bgr(file, rows)[:count], upper)


def test_any_damage_leaves_the_file_to_opencv():
    encoded = cv2.imencode(".png", scene(3))[1].tobytes()
    assert upper_rows(encoded, 100)
    for position in (17, 40, len(encoded) // 2, len(encoded) - 20):
        damaged = bytearray(encoded)
        damaged[position] ^= 4
        assert upper_rows(bytes(damaged), 100) is None
    for length in (0, 5, 20, 40, len(encoded) // 2, len(encoded) - 1):
        assert upper_rows(encoded[:length], 100) is None


def test_other_kinds_are_left_to_opencv(tmp_path):
    kinds = {
        "palette": Image.fromarray(scene(1)).convert("P"),
        "alpha": Image.fromarray(scene(3)).convert("RGBA"),
        "bits": Image.fromarray(scene(1)).convert("1"),
        "deep": Image.fromarray(scene(1).astype(np.uint16) * 257),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.png")
        assert upper_rows((tmp_path / f"{name}.png").read_bytes(), 9) is None
    assert upper_rows(cv2.imencode(".jpg", scene(3))[1].tobytes(), 9) is None
