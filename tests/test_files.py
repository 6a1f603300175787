"""Image and label files of all usual kinds, and broken ones."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from data_iter import DataError
from data_iter.image_files import exif_orientation, read_image, read_label, read_size

ROOT = Path(__file__).resolve().parents[1]
HW = (37, 53)
CLASSES = np.random.default_rng(1).integers(0, 12, HW, np.uint8)
RGB = np.random.default_rng(2).integers(0, 256, (*HW, 3), np.uint8)


def test_images_are_rgb_whatever_the_file_holds(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), RGB)
    alpha = np.dstack([RGB, np.full(HW, 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), RGB)
    Image.fromarray(CLASSES).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([CLASSES] * 3))
    deep = RGB.astype(np.uint16) * 257  # 16 bits a channel
    cv2.imwrite(str(tmp_path / "deep.png"), deep[:, :, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), RGB)


def test_labels_are_the_stored_values(tmp_path):
    Image.fromarray(CLASSES).save(tmp_path / "grey.png")
    palette = Image.fromarray(CLASSES, "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tolist())
    palette.save(tmp_path / "palette.png", bits=8)
    palette.save(tmp_path / "palette4.png", bits=4)
    for name in ("grey", "palette", "palette4"):
        np.testing.assert_array_equal(read_label(tmp_path / f"{name}.png"), CLASSES)


def test_a_one_bit_label_holds_zeros_and_ones(tmp_path):
    Image.fromarray(CLASSES > 5).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_label(tmp_path / "bits.png"), CLASSES > 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("lost", [1, 20, 900])
def test_a_truncated_file_is_named(tmp_path, suffix, lost):
    file = tmp_path / f"cut{suffix}"
    Image.fromarray(RGB).save(file)
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(DataError, match=rf"cut\{suffix}: not a whole image"):
        read_image(file)


@pytest.mark.parametrize("gluoncv_was_imported", [False, True])
def test_a_truncated_palette_label_is_named(tmp_path, monkeypatch, gluoncv_was_imported):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", gluoncv_was_imported)
    palette = Image.fromarray(CLASSES, "P")
    palette.putpalette(list(range(256)))
    palette.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-300])
    with pytest.raises(DataError, match=r"cut\.png: not a whole image"):
        read_label(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("pixels", "name", "reason"),
    [
        (RGB, "colour.png", "3 channels of uint8.*colour mask"),
        (CLASSES, "lossy.jpg", "must be a PNG, BMP, TIFF or GIF; JPEG"),
        (CLASSES.astype(np.uint16), "deep.png", "1 channels of uint16"),
        (np.dstack([RGB, CLASSES]), "alpha.png", "4 channels of uint8.*colour mask"),
    ],
)
def test_a_label_of_another_kind_gets_its_cause(tmp_path, pixels, name, reason):
    cv2.imwrite(str(tmp_path / name), pixels)
    with pytest.raises(DataError, match=reason):
        read_label(tmp_path / name)


def test_an_exif_rotation_is_seen_and_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    assert exif_orientation(tmp_path / "turned.jpg") == 6
    assert read_image(tmp_path / "turned.jpg").shape == (*HW, 3)
    assert read_size(tmp_path / "turned.jpg") == HW


@pytest.mark.parametrize("content", [None, b"", b"no image"])
@pytest.mark.parametrize("read", [read_image, read_label, read_size])
def test_what_is_no_image_is_named(tmp_path, read, content):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png"):
        read(tmp_path / "x.png")


def png(header):
    """A palette PNG with these bytes as its header and almost no image data."""
    parts = [(b"IHDR", header), (b"PLTE", bytes(3)), (b"IDAT", zlib.compress(b"x")), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    return content


def test_images_may_be_large(tmp_path):
    """The size of an image of 20000x20000 pixels can be read; it is below the limit."""
    (tmp_path / "large.png").write_bytes(png(struct.pack(">II5B", 20000, 20000, 8, 3, 0, 0, 0)))
    assert read_size(tmp_path / "large.png") == (20000, 20000)


@pytest.mark.parametrize("bits", [1, 8])
def test_a_flipped_bit_of_a_palette_label_is_named(tmp_path, bits):
    """Single bits of the compressed pixels are flipped; Pillow would return wrong classes."""
    palette = Image.fromarray(CLASSES & (2**bits - 1), "P")
    palette.putpalette(list(range(256)))
    palette.save(tmp_path / "x.png", bits=bits)
    content = (tmp_path / "x.png").read_bytes()
    begin = content.index(b"IDAT") + 4
    for place in range(begin, len(content) - 12, 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "x.png").write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.png"):
            read_label(tmp_path / "x.png")


@pytest.mark.parametrize("read", [read_image, read_label, read_size, exif_orientation])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "NUL"])
def test_only_files_are_opened(tmp_path, read, kind):
    file = {"device": Path("/dev/zero"), "NUL": tmp_path / "a\0b"}.get(kind, tmp_path / "x.png")
    if kind == "pipe":
        os.mkfifo(file)
    if kind == "folder":
        file.mkdir()
    with pytest.raises(DataError, match=r"expected a file, found|null"):
        read(file)


def test_an_image_that_claims_more_pixels_than_the_limit_is_refused_by_its_header(tmp_path):
    """The file has 10 GB of zeros in 10 MB; inflating them would exhaust the memory."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">II5B", 60000, 60000, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", block + again * 650), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    (tmp_path / "bomb.png").write_bytes(content)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30));"
        "from pathlib import Path; from data_iter.image_files import *\n"
        "try: (read_image, read_label, read_size)[int(sys.argv[2])](Path(sys.argv[1]))\n"
        "except DataError as error: print(error)"
    )
    for reader in "012":
        command = [sys.executable, "-c", code, str(tmp_path / "bomb.png"), reader]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert "bomb.png: more than 1073741824 pixels" in said.stdout, said.stderr


@pytest.mark.parametrize("header", [struct.pack(">II5B", 60000, 60000, 8, 3, 0, 0, 0), b"short"])
@pytest.mark.parametrize("read", [read_image, read_label, read_size, exif_orientation])
def test_a_broken_header_is_named(tmp_path, read, header):
    (tmp_path / "x.png").write_bytes(png(header))
    with pytest.raises(DataError, match=r"x\.png"):
        read(tmp_path / "x.png")
