"""Folders and lists as people have them: every format, clutter, byte order marks, odd lines."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_iter import DataError
from data_iter.datasets import LAYOUTS, find_samples, left_out
from data_iter.frames import FileFrames
from data_iter.image_files import read_image, read_label
from data_iter.listing import IMAGE_SUFFIXES, is_clutter, list_files, shortened
from data_iter.text_lists import read_lines, read_names
from tools.inference.files import find_images
from tools.shared.pairs import find_pairs, read_frames
from train.launch import read_hosts

HW = (11, 14)
VALUES = np.arange(HW[0] * HW[1], dtype=np.uint8).reshape(HW) % 5


def write_folder(root, images, labels, split="train"):
    for kind, files, picture in (("images", images, "RGB"), ("labels", labels, "L")):
        folder = root / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            pixels = np.dstack([VALUES * 40] * 3) if picture == "RGB" else VALUES
            Image.fromarray(pixels).save(folder / name)
    return root


def test_every_image_format_in_a_folder_is_read_alike(tmp_path):
    names = [f"{i}{suffix}" for i, suffix in enumerate(IMAGE_SUFFIXES)] + ["x.PNG", "y.JPG"]
    labels = [f"{i}.png" for i in range(len(IMAGE_SUFFIXES))] + ["x.PNG", "y.Bmp"]
    write_folder(tmp_path, names, labels)
    samples = find_samples("folders", tmp_path, "train")
    assert [sample.image.name for sample in samples] == sorted(names)
    frames = FileFrames(samples, LAYOUTS["folders"].read_label)
    for number, sample in enumerate(samples):
        image, label = frames.read(number, slice(3, 7), slice(2, 9))
        assert (image.shape, label.tolist()) == ((4, 7, 3), VALUES[3:7, 2:9].tolist()), sample
        assert frames.hw(number) == HW
    images, others = find_images(tmp_path / "images", tmp_path / "out")
    assert {image.name for image in images} == set(names)
    assert others == []


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF", ".gif"])
@pytest.mark.parametrize("palette", [False, True])
def test_labels_of_lossless_formats_keep_their_values(tmp_path, suffix, palette):
    picture = Image.fromarray(VALUES)
    if palette:
        picture.putpalette([9, 8, 7, 1, 2, 3, 4, 5, 6, 90, 80, 70, 255, 254, 253])
    file = tmp_path / f"label{suffix}"
    picture.save(file)
    np.testing.assert_array_equal(read_label(file), VALUES)


def test_a_gif_has_its_colours(tmp_path):
    colours = np.zeros((*HW, 3), np.uint8)
    colours[3:, 5:] = (250, 20, 90)
    Image.fromarray(colours).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif"), colours)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.tif", {"compression": "jpeg"}, "JPEG compression changes"),
        ("a.jpg", {}, "JPEG compression changes"),
        ("a.webp", {"lossless": True}, "WebP has no"),
    ],
)
def test_labels_of_lossy_formats_are_refused(tmp_path, name, options, message):
    Image.fromarray(VALUES).save(tmp_path / name, **options)
    with pytest.raises(DataError, match=f"{name}: a label must be .*{message}"):
        read_label(tmp_path / name)


def test_a_label_of_another_suffix_is_named(tmp_path):
    write_folder(tmp_path, ["f0.png"], [])
    (tmp_path / "labels/train/f0.webp").touch()
    with pytest.raises(DataError, match=r"expected .*f0\.png; found f0\.webp, labels are \.png"):
        find_samples("folders", tmp_path, "train")


def test_two_images_or_labels_of_one_name_are_refused(tmp_path):
    write_folder(tmp_path, ["f0.png", "f0.bmp"], ["f0.png"])
    with pytest.raises(DataError, match=r"f0\.png: f0\.bmp has the same name"):
        find_samples("folders", tmp_path, "train")


def test_clutter_is_left_out_everywhere(tmp_path):
    write_folder(tmp_path, ["a.png"], ["a.png"])
    for kind in ("images", "labels"):
        folder = tmp_path / kind / "train"
        for name in ("._a.png", "Thumbs.db", ".DS_Store", ".ipynb_checkpoints/a-checkpoint.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"clutter")
    assert [s.name for s in find_samples("folders", tmp_path, "train")] == ["a"]
    assert left_out("folders", tmp_path, "train") == ([], [])
    assert [f.name for f in find_images(tmp_path / "images", tmp_path / "out")[0]] == ["a.png"]
    labels = tmp_path / "labels/train"
    assert [pair.name for pair in find_pairs("folders", labels, labels)] == ["a"]
    assert [name for name in ("._x", "Thumbs.db", "a_b.png", "x.ini") if is_clutter(name)] == [
        "._x", "Thumbs.db",
    ]  # fmt: skip
    city = tmp_path / "leftImg8bit/train/ulm"
    city.mkdir(parents=True)
    for name in ("ulm_0_0_leftImg8bit.png", "._ulm_0_0_leftImg8bit.png"):
        (city / name).touch()
    assert [s.name for s in LAYOUTS["cityscapes"].find(tmp_path, "train")] == ["ulm_0_0"]
    assert list_files(tmp_path / "nowhere") == []


def test_linked_folders_are_entered_once_and_circles_are_not(tmp_path):
    """Real folders come first: the files keep the names that they have without links."""
    for name in ("elsewhere/deep/b.png", "elsewhere/.cache/x.png", "data/z/a.png", "near/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (
        ("data/again", "../data/z"),
        ("data/drive", "../elsewhere"),
        ("data/up", ".."),
        ("data/z/self", "."),
        ("data/nowhere", "gone"),
        ("elsewhere/deep/back", "../../elsewhere"),
        ("elsewhere/near", "../near"),
    ):
        (tmp_path / link).symlink_to(target)
    data = tmp_path / "data"
    found = [str(file.relative_to(data)) for file in list_files(data, "**/*", (".png",))]
    assert found == ["drive/deep/b.png", "drive/near/c.png", "z/a.png"]
    assert list_files(data, "**/b*") == [data / "drive/deep/b.png"]
    images, _ = find_images(data, tmp_path / "out")
    assert [image.name for image in images] == ["b.png", "c.png", "a.png"]


def test_what_is_left_out_has_a_name(tmp_path):
    write_folder(tmp_path, ["a.png"], ["a.png", "lonely.png"])
    (tmp_path / "images/train/deep").mkdir()
    (tmp_path / "images/train/deep/b.png").touch()
    (tmp_path / "images/train/notes.md").touch()
    alone, others = left_out("folders", tmp_path, "train")
    assert alone == ["labels/train/lonely.png"]
    assert others == ["images/train/deep/b.png", "images/train/notes.md"]
    assert [f.name for f in find_images(tmp_path / "images", tmp_path / "out")[1]] == ["notes.md"]
    assert shortened("abcdef") == "a, b, c and 3 more"


LINES = "\ufeff# made on Windows\r\n\r\ncafé  \r\n2012_010000\r\n"


def test_lists_with_a_byte_order_mark_crlf_and_accents_are_read_everywhere(tmp_path):
    file = tmp_path / "val.txt"
    file.write_bytes(LINES.encode())
    assert read_names(file) == ["café", "2012_010000"]
    assert read_lines(file)[0] == (3, "café")
    assert read_hosts(file) == ["café", "2012_010000"]
    voc = tmp_path / "voc"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (voc / folder).mkdir(parents=True)
    (voc / "ImageSets/Segmentation/val.txt").write_bytes(LINES.encode())
    samples = find_samples("voc", voc, "val", labelled=False)
    assert [sample.name for sample in samples] == ["2012_010000", "café"]


@pytest.mark.parametrize(
    "line", ["/JPEGImages/a.jpg /SegmentationClass/a.png", "a 1", "b/c", "a\tb"]
)
def test_a_line_that_is_no_name_has_its_number(tmp_path, line):
    (tmp_path / "val.txt").write_text(f"good\n\n{line}\n")
    with pytest.raises(DataError, match=r"val\.txt: line 3: expected the name of one frame"):
        read_names(tmp_path / "val.txt")


def test_a_list_of_another_encoding_is_one_sentence(tmp_path):
    (tmp_path / "val.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"val\.txt: not a list in UTF-8 .*byte 3"):
        read_names(tmp_path / "val.txt")


@pytest.mark.parametrize(("name", "between"), [("t.tsv", "\t"), ("t.CSV", ","), ("t.txt", "\t")])
def test_list_files_of_every_suffix_and_their_frames(tmp_path, name, between):
    write_folder(tmp_path, ["a.png"], ["a.png"])
    line = f"images/train/a.png{between}labels/train/a.png\r\n"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + line.encode())
    samples = find_samples("folders", tmp_path, name)
    assert (samples[0].name, samples[0].label) == ("a", tmp_path / "labels/train/a.png")
    names = read_frames(tmp_path / name, tmp_path)
    pairs = find_pairs("folders", tmp_path, tmp_path / "labels/train", names)
    assert [(pair.name, pair.truth) for pair in pairs] == [("a", tmp_path / "labels/train/a.png")]


def test_a_path_with_a_slash_in_front_gets_a_hint(tmp_path):
    (tmp_path / "t.tsv").write_text("/images/a.png\t/labels/a.png\n")
    with pytest.raises(DataError, match="line 1: no such image.*without the / in front"):
        find_samples("folders", tmp_path, "t.tsv")


def test_a_line_of_a_csv_that_is_too_long_has_its_number(tmp_path):
    (tmp_path / "t.csv").write_text(f"# first\n{'a' * 200_000},b\n")
    with pytest.raises(DataError, match=r"t\.csv: line 2: field larger .*; expected IMAGE,LABEL"):
        find_samples("folders", tmp_path, "t.csv")


def test_an_unknown_folder_says_what_is_expected_in_it(tmp_path):
    with pytest.raises(DataError, match=r"images/SPLIT/NAME \(\.png .*labels/SPLIT/NAME"):
        find_samples("folders", tmp_path, "train")


def test_an_empty_hold_out_of_a_small_kitti_set_says_so(tmp_path):
    (tmp_path / "training/image_2").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "training/image_2/um_000000.png"), VALUES)
    with pytest.raises(DataError, match="one frame in 5 of each category, and there are fewer"):
        find_samples("kitti", tmp_path, "val")
