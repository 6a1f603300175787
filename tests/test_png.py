"""Some rows of a PNG against OpenCV's decoding of the whole."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data_iter.image_files import read_bgr, read_label
from data_iter.png_rows import cut_rows

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
@pytest.mark.parametrize(
    "rows",
    [
        slice(0, 0), slice(0, 1), slice(None, 100), slice(7, 8), slice(90, 170), slice(210, 211),
        slice(211, 211), slice(100, 999), slice(None),
    ],
    ids=str,
)  # fmt: skip
def test_rows_are_those_of_the_whole(tmp_path, channels, writer, rows):
    file = tmp_path / "x.png"
    if writer == "pillow":  # adaptive filters, several IDAT chunks
        Image.fromarray(scene(channels)).save(file)
    else:
        level = [] if writer == "opencv" else [cv2.IMWRITE_PNG_COMPRESSION, 0]
        cv2.imwrite(str(file), scene(channels), level)
    whole = cv2.imread(str(file))
    np.testing.assert_array_equal(read_bgr(file, rows), whole[rows])
    if channels == 1:
        np.testing.assert_array_equal(read_label(file, rows), whole[rows, :, 0])
    cut = cut_rows(file.read_bytes(), rows)
    if rows.start == HW[0]:
        assert cut is None
        return
    part, first = cut
    start, stop, _ = rows.indices(HW[0])
    assert first <= start
    np.testing.assert_array_equal(decode(part), whole[first : max(stop, start + 1)])


def test_no_more_rows_than_needed_are_decoded():
    """A row that OpenCV writes needs no other row; a row of filter Up needs the row above."""
    pixels = scene(3)
    _, first = cut_rows(cv2.imencode(".png", pixels)[1].tobytes(), slice(90, 120))
    assert first == 90
    rows = np.vstack([np.zeros((1, 3 * HW[1]), np.uint8), pixels[:, :, ::-1].reshape(HW[0], -1)])
    differences = np.diff(rows, axis=0)  # uint8 wraps as PNG's filter Up does
    filtered = np.pad(differences, ((0, 0), (1, 0)), constant_values=2)
    filtered[50, 0], filtered[50, 1:] = 0, rows[51]  # one row that needs no other
    header = struct.pack(">IIBBBBB", HW[1], HW[0], 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    encoded = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )  # fmt: skip
    np.testing.assert_array_equal(decode(encoded), pixels)
    for start, first in ((49, 0), (50, 50), (90, 50)):
        part, found = cut_rows(encoded, slice(start, 120))
        assert found == first
        np.testing.assert_array_equal(decode(part), pixels[first:120])


def test_any_damage_leaves_the_file_to_opencv():
    encoded = cv2.imencode(".png", scene(3))[1].tobytes()
    upper = slice(0, 100)
    assert cut_rows(encoded, upper)
    for position in (17, 40, len(encoded) // 2, len(encoded) - 20):
        damaged = bytearray(encoded)
        damaged[position] ^= 4
        assert cut_rows(bytes(damaged), upper) is None
    for length in (0, 5, 20, 40, len(encoded) // 2, len(encoded) - 1):
        assert cut_rows(encoded[:length], upper) is None


def test_other_kinds_are_left_to_opencv(tmp_path):
    kinds = {
        "palette": Image.fromarray(scene(1)).convert("P"),
        "alpha": Image.fromarray(scene(3)).convert("RGBA"),
        "bits": Image.fromarray(scene(1)).convert("1"),
        "deep": Image.fromarray(scene(1).astype(np.uint16) * 257),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.png")
        assert cut_rows((tmp_path / f"{name}.png").read_bytes(), slice(9)) is None
    assert cut_rows(cv2.imencode(".jpg", scene(3))[1].tobytes(), slice(9)) is None
