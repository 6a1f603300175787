"""prepare_data.py as a user runs it: what is wrong, why, and the exit code."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from configs.datasets import load_dataset
from data_iter.frames import open_frames
from data_iter.records import read_manifest
from tools import prepare_data
from tools.dataset.check import OFFICIAL

HW = (40, 56)


@pytest.fixture
def root(tmp_path):
    """Write a small Cityscapes tree of two training frames and one to test on."""
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for number in range(count):
            name = f"ulm_{number:06d}_000019"
            image = tmp_path / f"leftImg8bit/{split}/ulm/{name}_leftImg8bit.png"
            label = tmp_path / f"gtFine/{split}/ulm/{name}_gtFine_labelIds.png"
            for file in (image, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), random.integers(0, 256, (*HW, 3), np.uint8))
            cv2.imwrite(str(label), random.integers(0, 34, HW, np.uint8))
    return tmp_path


def label(root, number=0):
    return root / f"gtFine/train/ulm/ulm_{number:06d}_000019_gtFine_labelIds.png"


def image(root, number=0):
    return root / f"leftImg8bit/train/ulm/ulm_{number:06d}_000019_leftImg8bit.png"


def check(root, capsys, *options):
    code = prepare_data.main(["--data-root", str(root), "--subset", *options])
    return code, capsys.readouterr().out


def test_a_right_data_set_is_found_right_and_left_as_it_is(root, capsys):
    before = {file: file.read_bytes() for file in root.rglob("*.png")}
    code, out = check(root, capsys)
    assert code == 0
    assert "nothing is wrong" in out
    assert "40x56: 2" in out
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_counts_are_held_against_the_official_ones(root, capsys):
    assert prepare_data.main(["check", "--data-root", str(root)]) == 1
    out = capsys.readouterr().out
    assert "split train: found 2 images, officially 2975" in out
    assert "split test: found 1 images, officially 1525" in out
    assert OFFICIAL["voc", "train_aug"] == (10582,)


def turn(root):
    picture = Image.open(image(root)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(image(root), exif=exif)


WRONG = {
    "gone": (lambda r: label(r).unlink(), "no label; expected .*labelIds.png"),
    "cut": (lambda r: image(r).write_bytes(image(r).read_bytes()[:-99]), "not a whole image file"),
    "size": (lambda r: cv2.imwrite(str(label(r)), np.zeros((40, 55), np.uint8)), "label is 55x40"),
    "turned": (
        lambda r: cv2.imwrite(str(label(r)), np.zeros(HW[::-1], np.uint8)),
        "was one of the two rotated",
    ),
    "exif": (turn, r"EXIF rotation \(orientation 6\)"),
    "colour": (lambda r: cv2.imwrite(str(label(r)), np.zeros((*HW, 3), np.uint8)), "colour mask"),
    "mask": (lambda r: cv2.imwrite(str(label(r)), np.eye(*HW, dtype=np.uint8) * 255), "0/255"),
    "jpeg": (
        lambda r: label(r).write_bytes(cv2.imencode(".jpg", np.zeros(HW, np.uint8))[1].tobytes()),
        "must be a PNG, BMP, TIFF or GIF; JPEG",
    ),
    "trainids": (
        lambda r: [
            cv2.imwrite(str(label(r, n)), np.arange(40 * 56, dtype=np.uint16).reshape(HW)
                        .__mod__(19).astype(np.uint8)) for n in (0, 1)
        ],
        "train ids where labelIds are expected",
    ),
    "trainids with 19 for ignored": (
        lambda r: [
            cv2.imwrite(str(label(r, n)), np.arange(40 * 56, dtype=np.uint16).reshape(HW)
                        .__mod__(20).astype(np.uint8)) for n in (0, 1)
        ],
        "no label value above 19: train ids where labelIds are expected",
    ),
    "void": (
        lambda r: [cv2.imwrite(str(label(r, n)), np.zeros(HW, np.uint8)) for n in (0, 1)],
        "every pixel would be ignored",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_with_its_cause(root, capsys, kind):
    damage, reason = WRONG[kind]
    damage(root)
    code, out = check(root, capsys)
    assert code == 1
    assert re.search(reason, out.replace("\n", " ")), out


FITTING_BUT_WRONG = {
    "0/255": ({0: 0, 12: 255}, "no label value but 0, 255: a black-and-white mask"),
    "0/1": ({0: 0, 12: 1, 255: 1}, "no label value but 0-1: a black-and-white mask"),
    "one class": ({0: 12, 12: 12, 255: 255}, "no label has a class but dog"),
    "from 1": ({0: 1, 12: 13, 255: 255}, r"no label has the first class, background \(0\)"),
    "right": ({0: 0, 12: 12, 255: 255}, "nothing is wrong"),
}


@pytest.mark.parametrize("kind", FITTING_BUT_WRONG)
def test_voc_labels_whose_values_all_fit_the_table_and_are_wrong(tmp_path, capsys, kind):
    values, reason = FITTING_BUT_WRONG[kind]
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2007_1\n")
    right = np.zeros(HW, np.uint8)
    right[9:20, 9:40] = 12
    right[9, 9:40] = 255
    drawn = np.zeros(256, np.uint8)
    for value, wrong in values.items():
        drawn[value] = wrong
    cv2.imwrite(str(tmp_path / "SegmentationClass/2007_1.png"), drawn[right])
    cv2.imwrite(str(tmp_path / "JPEGImages/2007_1.jpg"), np.zeros((*HW, 3), np.uint8))
    code, out = check(tmp_path, capsys, "--dataset", "voc")
    assert code == (kind != "right")
    assert re.search(reason, out), out


def test_sizes_are_held_against_the_official_ones(root, capsys):
    prepare_data.main(["check", "--data-root", str(root)])
    assert "split train: 2 images are not 1024x2048" in capsys.readouterr().out
    for file in root.glob("leftImg8bit/test/*/*"):
        cv2.imwrite(str(file), np.zeros((1024, 2048, 3), np.uint8))
    prepare_data.main(["check", "--data-root", str(root), "--split", "test"])
    assert "1024x2048 (height" not in capsys.readouterr().out
    assert "1024x2048" not in check(root, capsys, "--split", "train")[1]


def test_coco_is_checked_where_it_was_drawn(tmp_path, capsys):
    for folder, suffix in (("images", "jpg"), ("labels", "png")):
        (tmp_path / "coco" / folder / "val2017").mkdir(parents=True)
        picture = np.full(HW, 0, np.uint8)
        cv2.imwrite(str(tmp_path / "coco" / folder / "val2017" / f"9.{suffix}"), picture)
    code, out = check(tmp_path, capsys, "--dataset", "voc")
    assert code == 1
    assert "split coco: no label has a class but background" in out


def test_the_histogram_has_a_row_for_each_value(root, capsys):
    cv2.imwrite(str(label(root, 0)), np.full(HW, 7, np.uint8))
    cv2.imwrite(str(label(root, 1)), np.full(HW, 26, np.uint8))
    _, out = check(root, capsys, "--split", "train")
    rows = {line.split("│")[2].strip(): line for line in out.splitlines() if line.count("│") == 4}
    assert "50.000" in rows["road"]
    assert "50.000" in rows["car"]
    assert "0.000" in rows["sky"]


@pytest.mark.parametrize("options", [["--data-root", "nowhere"], ["--dataset", "citiscapes"]])
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, capsys, options):
    code = prepare_data.main(["check", "--data-root", str(tmp_path), *options])
    assert code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_pack_then_check_the_pack(root, capsys):
    out = root / "packed"
    options = ["pack", "--data-root", str(root), "--out", str(out), "--jpeg", "90"]
    assert prepare_data.main(options) == 0
    assert "train: 2 frames, 2 of them packed now" in capsys.readouterr().out
    assert read_manifest(out, "train")["jpeg_quality"] == 90
    assert prepare_data.main(["check", "--data-root", str(out)]) == 0
    rec = out / "train-0000.rec"
    rec.write_bytes(rec.read_bytes()[:-1] + b"x")
    assert prepare_data.main(["check", "--data-root", str(out)]) == 1
    assert "train-0000.rec: damaged or missing" in capsys.readouterr().out
    shutil.rmtree(out)
    assert prepare_data.main([*options, "--jpeg", "0"]) == 2


@pytest.mark.parametrize("text", ['{"images": []}', "[1, 2", "[]"])
def test_what_is_no_coco_file_is_one_sentence(tmp_path, capsys, text):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(text)
    options = ["--data-root", str(tmp_path), "--split", "val2017", "--out", str(tmp_path / "out")]
    assert prepare_data.main(["coco", *options]) == 2
    assert "instances_val2017.json: not a COCO annotation file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_joined_splits_are_packed_each_by_itself(root, capsys):
    for kind in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / kind / "train", root / kind / "val")
    out = root / "packed"
    options = ["pack", "--data-root", str(root), "--split", "train+val", "--out"]
    assert prepare_data.main([*options, str(out)]) == 0
    assert len(open_frames("cityscapes", out, "train+val")) == 4
    capsys.readouterr()
    assert prepare_data.main([*options, str(root / "packed" / "..")]) == 2
    assert "is the data set's own folder" in capsys.readouterr().err


def test_coco_instances_become_voc_labels(tmp_path, capsys):
    def square(top, left, side):
        right, bottom = left + side, top + side
        return [[left, top, right, top, right, bottom, left, bottom]]

    instances = [
        (1, 63, square(2, 2, 10), 0),  # couch -> sofa 18
        (1, 18, square(7, 7, 10), 0),  # dog 12, over a corner of the couch
        (1, 90, square(20, 20, 5), 0),  # toothbrush: background
        (1, 18, square(10, 5, 25), 1),  # a crowd of dogs, where nothing else is
        (2, 90, square(2, 2, 5), 0),
    ]
    annotations = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "height": 30, "width": 41} for i in (1, 2)
        ],
        "categories": [{"id": 63, "name": "couch"}, {"id": 18, "name": "dog"},
                       {"id": 90, "name": "toothbrush"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "segmentation": polygon,
             "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]}
            for n, (image, category, polygon, crowd) in enumerate(instances, start=1)
        ],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(annotations))
    (tmp_path / "val2017").mkdir()
    cv2.imwrite(str(tmp_path / "val2017/000000000001.jpg"), np.zeros((30, 41, 3), np.uint8))
    out = tmp_path / "out"
    options = ["--data-root", str(tmp_path), "--split", "val2017", "--out", str(out)]
    assert prepare_data.main(["coco", *options]) == 0
    said = capsys.readouterr().out
    assert "1 images" in said
    assert "categories that VOC has not, drawn as background (1): toothbrush\n" in said
    assert "images without a class of VOC (1): 000000000002.jpg\n" in said
    listed = (out / "left_out_val2017.txt").read_text()
    assert listed == "category\ttoothbrush\nimage\t000000000002.jpg\n"
    expected = np.zeros((30, 41), np.uint8)
    expected[10:30, 5:30] = 255
    expected[2:12, 2:12] = 18
    expected[7:17, 7:17] = 12
    expected[7:12, 7:12] = 255
    found = cv2.imread(str(out / "labels/val2017/000000000001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, expected)
    link = out / "images/val2017/000000000001.jpg"
    assert cv2.imread(str(link)).shape == (30, 41, 3)
    link.unlink()
    link.symlink_to("moved.jpg")
    assert prepare_data.main(["coco", *options]) == 0
    assert link.exists()
    shutil.copy(link, tmp_path / "copy.jpg")
    (tmp_path / "copy.jpg").replace(link)  # a copy in place of the link may stay
    assert prepare_data.main(["coco", *options]) == 0
    assert load_dataset("voc").label_lut[18] == 18
