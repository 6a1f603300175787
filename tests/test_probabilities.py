"""Probability maps on disk: damaged or hostile files are refused, never read as other numbers."""

import io
import zipfile

import numpy as np
import pytest

from configs.datasets import load_dataset
from data_iter import DataError
from tools.shared.probabilities import check_classes, read_probabilities, write_probabilities

MAP = np.random.default_rng(0).integers(0, 65536, (3, 5, 7), np.uint16)


def array_file(header):
    content = header.encode()
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + MAP.tobytes()


def pack(path, member, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("probabilities.npy", member)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 5, 8), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 5, 10**9), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3, -5, -7), }",
        "{'descr': '<u2', 'fortran_order': True, 'shape': (3, 5, 7), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3, 5, 7), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (" + "(" * 5000,
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 5, 7), 1: 2}",
        "'''",
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header):
    pack(tmp_path / "x.npz", array_file(header))
    with pytest.raises(DataError, match=r"x\.npz: cannot be read as a probability map"):
        read_probabilities(tmp_path / "x.npz")


def test_the_number_of_classes_is_checked_by_the_header(tmp_path):
    file = tmp_path / "x.npz"
    write_probabilities(file, MAP[:2])
    check_classes(file, load_dataset("kitti"))
    with pytest.raises(DataError, match=r"x\.npz: it has 2 classes, data set camvid 11"):
        check_classes(file, load_dataset("camvid"))
    file.write_text("no archive")
    with pytest.raises(DataError, match=r"x\.npz: cannot be read as a probability map"):
        check_classes(file, load_dataset("kitti"))


@pytest.mark.parametrize("kind", ["npy", "lzma", "encrypted", "text"])
def test_other_files_are_refused(tmp_path, kind):
    file = tmp_path / "x.npz"
    content = io.BytesIO()
    np.save(content, MAP)
    if kind == "npy":
        file.write_bytes(content.getvalue())
    elif kind == "text":
        file.write_text("no archive")
    else:
        pack(file, content.getvalue(), zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_STORED)
    if kind == "encrypted":
        damaged = bytearray(file.read_bytes())
        damaged[6] |= 1
        damaged[damaged.rindex(b"PK\x01\x02") + 8] |= 1
        file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"x\.npz: cannot be read as a probability map"):
        read_probabilities(file)


def test_a_flipped_bit_never_gives_other_numbers(tmp_path):
    file = tmp_path / "x.npz"
    write_probabilities(file, MAP)
    content = file.read_bytes()
    refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_probabilities(file), MAP)
        except DataError:
            refused += 1
    assert refused > len(content) / 2
