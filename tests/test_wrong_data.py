"""Own data with a mistake in it: exit code 2, one sentence that names it, nothing left behind."""

import json
import shutil

import cv2
import numpy as np
import pytest
from annotations import FORMATS
from PIL import Image
from pycocotools import mask as coco_mask

from configs.datasets import load_dataset
from data_iter.image_files import read_label
from tools import crf, evaluate, import_data, panels, predict, prepare_data
from tools.dataset.coco import mask_of, run_lengths

HW = (6, 7)


def listing(root):
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


def refused(main, argv, root, capsys):
    """Run a command that must fail and change no file; return its one sentence."""
    before = listing(root)
    assert main([str(argument) for argument in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert listing(root) == before
    return error


# --- annotations ---------------------------------------------------------------------------------


def write_coco(root, segmentation, **changes):
    """Write two images and one annotation; ``changes`` replace parts of the document."""
    for name in "ab":
        cv2.imwrite(str(root / f"{name}.png"), np.zeros((*HW, 3), np.uint8))
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 6, "width": 7} for n in "ab"],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [{"id": 5, "image_id": "a", "category_id": 1, "segmentation": segmentation}],
    }
    (root / "all.json").write_text(json.dumps(document | changes))
    return [root / "all.json", "--out", root / "own"]


TRIANGLE = [[0, 0, 6, 0, 6, 5]]
WRONG_COCO = {
    "no category name": (TRIANGLE, {"categories": [{"id": 1}]}, "categories: an entry without n"),
    "no file name": (TRIANGLE, {"images": [{"id": "a"}]}, "images: an entry without file_name"),
    "panoptic": (TRIANGLE, {"annotations": [{"image_id": "a"}]}, "annotations: an entry without"),
    "two of a name": (
        TRIANGLE, {"categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "road"}],
                   "annotations": [{"id": n, "image_id": "a", "category_id": n,
                                    "segmentation": TRIANGLE} for n in (1, 2)]},
        "two classes have the name 'road'",
    ),
    "another size": (
        TRIANGLE, {"images": [{"id": "a", "file_name": "a.png", "height": 12, "width": 14},
                              {"id": "b", "file_name": "b.png"}]},
        "a.png: the image is 7x6, its annotations are of 14x12 (width x height)",
    ),
    "words": ([list("abcdef")], {}, "annotation 5: its segmentation cannot be read (could not"),
    "odd": ([[0, 0, 6, 0, 6, 5, 1]], {}, "annotation 5: its segmentation cannot be read (an odd"),
    "far": ([[0, 0, 1e9, 0, 6, 5]], {}, "annotation 5: its segmentation cannot be read (coord"),
    "not a number": ([[0, 0, 6, float("nan"), 6, 5]], {}, "(coordinate nan, expected pixels below"),
    "infinite": ([[0, 0, 6, 0, float("-inf"), 5]], {}, "(coordinate -inf, expected pixels below"),
    "no float": ([[0, 0, 6, 0, 6, 10**400]], {}, "annotation 5: its segmentation cannot be read ("),
    "infinite size": (
        [[0, 0, 6, 0, 6, 1e9]], {"images": [{"id": n, "file_name": f"{n}.png", "width": 7,
                                             "height": float("inf")} for n in "ab"]},
        "(coordinate 1e+09, expected pixels below",
    ),
    "a number": (5, {}, "annotation 5: its segmentation cannot be read"),
    "runs of another size": ({"counts": [0, 10], "size": [2, 5]}, {}, "size [2, 5], expected"),
    "too few runs": ({"counts": [0, 10], "size": [6, 7]}, {}, "of 10 pixels, expected 42"),
    "too many runs": ({"counts": [0, 999], "size": [6, 7]}, {}, "of 999 pixels, expected 42"),
    "compressed, too few": ({"counts": "0:", "size": [6, 7]}, {}, "of 10 pixels, expected 42"),
    "compressed garbage": ({"counts": "\x00!!", "size": [6, 7]}, {}, "the character '\\x00'"),
    "a list as id": (TRIANGLE, {"images": [{"id": [], "file_name": "a.png"}]}, "unhashable type"),
    "a list as category": (
        TRIANGLE, {"annotations": [{"id": 5, "image_id": "a", "category_id": []}]}, "unhashable",
    ),
    "words and numbers": (
        TRIANGLE, {"images": [{"id": 1, "file_name": "a.png"}, {"id": "b", "file_name": "b.png"}]},
        "images: ids of several types",
    ),
    "one id twice": (
        TRIANGLE, {"images": [{"id": 1, "file_name": f"{n}.png"} for n in "ab"]},
        "images: two have the id 1",
    ),
    "nested": (TRIANGLE, None, "all.json: not a COCO annotation file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_COCO)
def test_wrong_coco(tmp_path, capsys, kind):
    segmentation, changes, message = WRONG_COCO[kind]
    argv = write_coco(tmp_path, segmentation, **(changes or {}))
    if changes is None:
        (tmp_path / "all.json").write_text("[" * 100_000)
    assert message in refused(import_data.main, argv, tmp_path, capsys)


def test_an_outline_of_two_points_is_left_out_by_name(tmp_path, capsys):
    assert import_data.main([str(a) for a in write_coco(tmp_path, [[0, 0, 6, 5]])]) == 0
    assert "fewer than three points (1): a.png: road" in capsys.readouterr().out
    for file in (tmp_path / "own/labels").rglob("*.png"):
        assert (read_label(file) == 255).all()


def test_annotations_of_what_is_not_listed_are_left_out_by_name(tmp_path, capsys):
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "segmentation": TRIANGLE}
        for n, image, category in ((5, "a", 1), (6, "gone", 1), (7, "b", 9))
    ]
    argv = write_coco(tmp_path, TRIANGLE, annotations=annotations)
    assert import_data.main([str(argument) for argument in argv]) == 0
    printed = capsys.readouterr().out
    assert "annotations of an image that is not listed (1): image gone" in printed
    assert "annotations of a category that has no name (1): category 9" in printed
    document = json.loads((tmp_path / "all.json").read_text())
    document["annotations"] = [annotations[0], annotations[2]]
    document["categories"][0]["name"] = "dog"
    for folder in ("annotations", "v"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations/instances_v.json").write_text(json.dumps(document))
    (tmp_path / "a.png").rename(tmp_path / "v/a.png")
    options = ["--data-root", str(tmp_path), "--split", "v", "--out", str(tmp_path / "voc")]
    assert prepare_data.main(["coco", *options]) == 0
    assert "drawn as background (1): category 9, which has no name\n" in capsys.readouterr().out


def test_run_lengths_are_those_of_pycocotools(tmp_path):
    random = np.random.default_rng(8)
    for hw, share in (((37, 53), 0.5), ((90, 20), 0.01), ((300, 200), 0.999), ((5, 9), 0)):
        mask = random.random(hw) < share
        mask[: hw[0] // 2, 2:5] = False
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotation = {"segmentation": encoded | {"counts": encoded["counts"].decode()}}
        np.testing.assert_array_equal(mask_of(annotation, hw, tmp_path), mask)
        assert sum(run_lengths(encoded["counts"])) == mask.size


WRONG_SOURCES = {
    "cvat z_order": ("cvat", "all.xml", 'z_order="1"', 'z_order="top"', "expected a whole"),
    "cvat size": ("cvat", "all.xml", 'width="64"', 'width="32"', "its annotations are of 32x48"),
    "cvat far": ("cvat", "all.xml", 'points="0,24;', 'points="0,1e9;',
                 "all.xml: image seq0_00.png: polygon: coordinate 1e+09, expected pixels below"),
    "cvat odd": ("cvat", "all.xml", 'points="0,24;', 'points="0;',
                 "polygon: an odd number of coordinates"),
    "cvat box": ("cvat", "all.xml", 'xtl="4"', 'xtl="nan"', "box: coordinate nan"),
    "cvat mask": ("cvat", "all.xml", 'left="7"', 'left="-7"',
                  "image seq0_01.png: mask: a mask at x -7, y 30, expected inside 64x48 pixels"),
    "cvat mask far": ("cvat", "all.xml", 'left="7"', 'left="inf"', "image seq0_01.png: mask: "),
    "labelme far": ("labelme", "seq0_00.json", "[64, 24]", "[1e9, 24]",
                    "seq0_00.json: shape 1 cannot be read (coordinate 1e+09, expected pixels"),
    "labelme mask": ("labelme", "seq0_02.json", "[10, 30]", "[NaN, 30]",
                     "seq0_02.json: shape 2 cannot be read (coordinate nan, expected pixels"),
    "labelme no float": ("labelme", "seq0_00.json", "[64, 24]", f"[{10**400}, 24]",
                         "seq0_00.json: shape 1 cannot be read ("),
    "labelme size": ("labelme", "seq0_00.json", '"version"',
                     '"imageHeight": 9, "imageWidth": 9, "v"',
                     "its annotations are of 9x9"),
    "labelme empty name": ("labelme", "seq0_00.json", '"label": "road"', '"label": ""',
                           "own/classes.yaml: classes, row 1: name: expected a word or more"),
    "yolo keys": ("yolo", "data.yaml", "names: ", "names: {1: a, 2: b} #", "expected the keys"),
    "yolo words": ("yolo", "data.yaml", "names: ", "names: {0: a, b: c} #", "expected the keys"),
    "yolo twins": ("yolo", "data.yaml", "names: ", "names: [a, a, b] #", "two classes have"),
    "colours": ("masks", "colors.txt", "0,0,142", "128,64,128", "has a colour or a name of before"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_SOURCES)
def test_wrong_exports(tmp_path, capsys, kind):
    name, file, old, new, message = WRONG_SOURCES[kind]
    source, options = FORMATS[name](tmp_path / "source")
    text = (tmp_path / "source" / file).read_text()
    assert old in text
    (tmp_path / "source" / file).write_text(text.replace(old, new))
    argv = [source, "--out", tmp_path / "own", *options]
    assert message in refused(import_data.main, argv, tmp_path, capsys)


WRONG_OPTIONS = {
    "unlabelled": (["--unlabelled", " "], "expected 'ignore' or the name of a class"),
    "out": (["--out", "taken.txt"], "taken.txt: exists already"),
}


@pytest.mark.parametrize("format", FORMATS)
def test_images_that_are_not_there(tmp_path, capsys, format):
    source, options = FORMATS[format](tmp_path / "source")
    argv = [source, "--out", tmp_path / "own", *options, "--images", tmp_path / "nowhere"]
    assert "nowhere: no such folder of images" in refused(import_data.main, argv, tmp_path, capsys)


@pytest.mark.parametrize("kind", WRONG_OPTIONS)
def test_wrong_options_of_an_import(tmp_path, capsys, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.txt").write_text("")
    source, _ = FORMATS["yolo"](tmp_path / "source")
    options, message = WRONG_OPTIONS[kind]
    argv = [source, "--out", "own", *options]
    assert message in refused(import_data.main, argv, tmp_path, capsys)


def test_two_classes_of_one_colour(tmp_path, capsys):
    source, _ = FORMATS["masks"](tmp_path / "source")
    rows = "[{name: a, color: [0, 0, 142]}, {name: b, color: [0, 0, 142]}]"
    (tmp_path / "table.yaml").write_text(f"name: own\nclasses: {rows}\n")
    argv = [source, "--colors", tmp_path / "table.yaml", "--out", tmp_path / "own"]
    assert "a and b have the same colour" in refused(import_data.main, argv, tmp_path, capsys)


# --- the class table -----------------------------------------------------------------------------

TABLES = {
    "unknown key": ("name: a\nclases: [x]\n", "unknown field 'clases'; did you mean 'classes'?"),
    "unknown key of a row": ("name: a\nclasses: [{name: x, colour: [1, 2, 3]}]\n", "mean 'color'?"),
    "two of a name": ("name: a\nclasses: [x, x]\n", "row 2: name x is already in row 1"),
    "two of an id": (
        "name: a\nclasses: [{name: x, id: 1}, {name: y, id: 1}]\n", "row 2: id 1 is already in row",
    ),
    "no word": ("name: a\nclasses: ['', x]\n", "row 1: name: expected a word or more, found ''"),
    "two lines": ('name: a\nclasses: ["x\\ny"]\n', "row 1: name: expected a word or more"),
    "layout": ("name: a\nlayout: folder\nclasses: [x]\n", "layout 'folder': expected one of city"),
    "yes": ("name: a\nclasses: [yes, no]\n", "row 1: expected the fields name"),
    "tabs": ("name: a\nclasses:\n\t- x\n", "not a YAML file"),
}  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """Write six frames, two of them to validate on, and predictions of these."""
    random = np.random.default_rng(1)
    (tmp_path / "own.yaml").write_text("name: own\nclasses: [road, 'car [/x]', sky]\n")
    for split, numbers in (("train", range(4)), ("val", (4, 5))):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in numbers:
            label = random.integers(0, 3, (12, 17), np.uint8)
            cv2.imwrite(str(tmp_path / f"labels/{split}/{number}.png"), label)
            image = random.integers(0, 256, (12, 17, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"images/{split}/{number}.png"), image)
    shutil.copytree(tmp_path / "labels/val", tmp_path / "predictions")
    return tmp_path


@pytest.mark.parametrize("kind", TABLES)
def test_wrong_class_tables(own, capsys, kind):
    text, message = TABLES[kind]
    (own / "own.yaml").write_text(text)
    argv = ["check", "--dataset", own / "own.yaml", "--data-root", own]
    assert message in refused(prepare_data.main, argv, own, capsys)


# --- folders, lists, labels ----------------------------------------------------------------------


def evaluated(own, *options):
    folders = ["--ground-truth", own / "labels/val", "--predictions", own / "predictions"]
    return ["--dataset", own / "own.yaml", *folders, "--json", own / "new/s.json", *options]


LISTS = {
    "twice": ("4\n5\n4\n", "line 3: 4 is in line 1 already"),
    "suffix": (
        "\ufeff4.png\r\n",
        "line 1: expected the name of one frame without folder and suffix",
    ),
    "folder": ("val/4\n", "line 1: expected the name of one frame"),
    "columns": ("4 5\n", "line 1: expected the name of one frame"),
    "nobody": ("4\n9\n", "9: there is no label file"),
    "empty": ("\ufeff\r\n# nothing\r\n", "an empty list"),
    "pairs": ("images/val/4.png\tlabels/val/4.png\n", "--ground-truth is the data root"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_wrong_lists_of_frames(own, capsys, kind):
    text, message = LISTS[kind]
    (own / "n.txt").write_bytes(text.encode())
    argv = evaluated(own, "--names", own / "n.txt")
    assert message in refused(evaluate.main, argv, own, capsys)


def test_a_frame_twice_in_a_list_file(own, capsys):
    lines = "images/val/4.png\tlabels/val/4.png\n" * 2
    (own / "n.tsv").write_text(lines)
    argv = evaluated(own, "--names", own / "n.tsv", "--ground-truth", own)
    assert "line 2: 4 is in line 1 already" in refused(evaluate.main, argv, own, capsys)


def rewrite(file, pixels, suffix=None):
    Image.fromarray(pixels).save(file.with_suffix(suffix) if suffix else file)
    if suffix:
        file.unlink()


DAMAGE = {
    "size": (lambda f: rewrite(f, np.zeros((5, 9), np.uint8)), "the prediction is 17x12"),
    "16 bit": (lambda f: rewrite(f, np.zeros((12, 17), np.uint16)), "expected one channel"),
    "alpha": (lambda f: rewrite(f, np.zeros((12, 17, 4), np.uint8)), "is it a colour mask"),
    "float": (lambda f: rewrite(f, np.zeros((12, 17), np.float32), ".tif"), "pixels of mode F"),
    "range": (lambda f: rewrite(f, np.full((12, 17), 77, np.uint8)), "77 (204 pixels); exp"),
    "jpeg": (lambda f: rewrite(f, np.zeros((12, 17), np.uint8), ".jpg"), "without a label file"),
    "jpeg by another name": (
        lambda f: (rewrite(f, np.zeros((12, 17), np.uint8), ".jpg"),
                   f.with_suffix(".jpg").rename(f)), "JPEG compression changes its values",
    ),
    "empty": (lambda f: f.write_bytes(b""), "not a whole image file"),
    "text": (lambda f: f.write_text("x"), "as an image (damaged, or of another format)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_wrong_labels(own, capsys, kind):
    damage, message = DAMAGE[kind]
    damage(own / "labels/val/4.png")
    assert message in refused(evaluate.main, evaluated(own), own, capsys)
    data = ["--dataset", own / "own.yaml", "--data-root", own]
    assert prepare_data.main(["check", *map(str, data)]) == 1
    assert "1 problem\n" in capsys.readouterr().out
    if kind != "range":  # a pack stores any values
        argv = ["pack", *data, "--split", "val", "--out", own / "packed"]
        refused(prepare_data.main, argv, own, capsys)


def test_a_damaged_image_is_named_itself(own, capsys):
    (own / "images/train/2.png").write_bytes(b"")
    check = ["check", "--dataset", str(own / "own.yaml"), "--data-root", str(own)]
    assert prepare_data.main(check) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{own / 'images/train/2.png'}: cannot be read") for line in lines)


def test_labels_of_a_test_split_are_read_where_there_are_some(own, capsys):
    data = ["--dataset", str(own / "own.yaml"), "--data-root", str(own)]
    for kind in ("images", "labels"):
        shutil.move(own / kind / "val", own / kind / "test")
    rewrite(own / "labels/test/4.png", np.full((12, 17), 77, np.uint8))
    (own / "labels/test/5.png").unlink()
    assert prepare_data.main(["check", *data]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "labels/test/4.png: label values outside the class table: 77" in printed
    assert "images/test/5.png: no label; expected" in printed
    shutil.rmtree(own / "labels/test")
    assert prepare_data.main(["check", *data]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_other_commands(own, capsys):
    """predict, panels, crf and the import of COCO refuse a mistake in the same way."""
    (own / "a [b].png").write_bytes(b"no image")
    out = ["--out", own / "deep/new"]
    error = refused(predict.main, [own / "a [b].png", *out], own, capsys)
    assert "a [b].png: cannot be read as an image" in error
    table = ["--dataset", own / "own.yaml", "--images", own / "images/val"]
    argv = [*table, "--predictions", own / "predictions", "--frames", "4", "--overlay", "car", *out]
    error = refused(panels.main, argv, own, capsys)
    assert "--overlay car: expected one of road, car [/x], sky" in error
    refused(crf.main, [*table, "--probabilities", own / "nowhere", *out], own, capsys)
    for folder in ("annotations", "v"):
        (own / folder).mkdir()
    for name, file, change, message in (
        ("dog", "a.png", {}, "a.png: no such image"),
        ("cup", "a.png", {}, "no image in it shows a class"),
        ("dog", "a.png", {"image_id": 9}, "has annotations of image 9, which it does not list"),
        ("dog", "a.png", {"image_id": "x"}, "has annotations of image x, which it does not list"),
        ("dog", "../images/val/4.png", {}, "v.json: image 1: expected its height and width"),
    ):
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": TRIANGLE}
        document = {
            "images": [{"id": 1, "file_name": file, "height": 6}],
            "categories": [{"id": 1, "name": name}],
            "annotations": [annotation, annotation | {"id": 2} | change],
        }
        (own / "annotations/instances_v.json").write_text(json.dumps(document))
        argv = ["coco", "--data-root", own, "--split", "v", *out]
        assert message in refused(prepare_data.main, argv, own, capsys)
    assert load_dataset(own / "own.yaml").classes[1].name == "car [/x]"
