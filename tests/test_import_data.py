"""tools/import_data.py on exports of five formats: same labels, and all that is lost is named."""

import re

import cv2
import numpy as np
import pytest
from annotations import CLASSES, FORMATS, FRAMES, HW, truth
from PIL import Image

from configs import ConfigError
from configs.datasets import load_dataset
from data_iter.datasets import find_samples
from data_iter.image_files import read_image, read_label
from tools import import_data
from tools.dataset.importers.regions import Region, draw
from tools.dataset.importing import assign_splits


def run(kind, tmp_path, *options):
    source, more = FORMATS[kind](tmp_path / "source")
    return import_data.main([str(source), "--out", str(tmp_path / "own"), *more, *options])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_labels_are_those_that_were_drawn(tmp_path, capsys, kind):
    assert run(kind, tmp_path) == 0
    out = capsys.readouterr().out
    spec = load_dataset(tmp_path / "own/classes.yaml")
    ids = {row.name: row.id for row in spec.classes}
    expected = np.full(256, 255 if kind != "masks" else ids["void"], np.uint8)
    expected[:2] = [ids[name] for name in CLASSES]
    samples = find_samples("folders", tmp_path / "own", "train+val")
    assert len(samples) == FRAMES
    assert len(find_samples("folders", tmp_path / "own", "val")) == 2
    for sample in samples:
        number = int(sample.name[-2:])
        np.testing.assert_array_equal(
            read_label(sample.label), expected[truth(number)], sample.name
        )
        assert read_image(sample.image).shape == (*HW, 3)
    assert CLASSES[1] in out
    drawn = "10 images to train on, 2 to validate (validation images drawn, seed 0); later regions"
    assert drawn in out
    for loss in {
        "coco": ["categories without an annotation (1): unused", "missing (1): gone.png"],
        "labelme": ["(linestrip) (12): seq0_00.json: kerb, "],
        "cvat": ["labels without a region (1): unused", "(polyline) (12): seq0_00.png: kerb, "],
        "yolo": ["a box and no outline (12): seq0_00.txt: kerb", "without a region (1): kerb"],
        "masks": [],
    }[kind]:
        assert loss in out


def test_unlabelled_pixels_become_a_class_where_it_is_told(tmp_path):
    assert run("yolo", tmp_path, "--unlabelled", "background") == 0
    spec = load_dataset(tmp_path / "own/classes.yaml")
    assert [row.name for row in spec.classes] == ["background", *CLASSES]
    label = read_label(next((tmp_path / "own/labels/train").iterdir()))
    assert set(np.unique(label)) == {0, 1, 2}


def test_the_split_of_a_yolo_source_is_kept_unless_another_is_asked_for(tmp_path, capsys):
    source, _ = FORMATS["yolo"](tmp_path / "source")
    for number, file in enumerate(sorted((source / "images").iterdir())):
        split = "test" if number == 0 else "valid" if number < 4 else "train"
        for kind, name in (("images", file.name), ("labels", f"{file.stem}.txt")):
            (source / split / kind).mkdir(parents=True, exist_ok=True)
            (source / kind / name).rename(source / split / kind / name)
    out = tmp_path / "own"
    assert import_data.main([str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "8 images to train on, 3 to validate, 1 to test (split as in the source);" in said
    for split, numbers in (("test", [0]), ("val", [1, 2, 3]), ("train", range(4, 12))):
        names = [f"seq{number // 4}_{number:02}.png" for number in numbers]
        for kind in ("images", "labels"):
            assert sorted(f.name for f in (out / kind / split).iterdir()) == names
    label = read_label(out / "labels/val/seq0_02.png")
    np.testing.assert_array_equal(label, truth(2))
    drawn = tmp_path / "drawn"
    assert import_data.main([str(source), "--out", str(drawn), "--val-share", "0.5"]) == 0
    assert len(list((drawn / "labels/val").iterdir())) == 6
    assert "drawn, seed 0" in capsys.readouterr().out


def test_overlaps():
    """The later or the smaller region is on top; a crowd is ignored where it is alone."""
    large, small = np.zeros((2, 6, 7), bool)
    large[1:5], small[2:3, 2:5] = True, True
    crowd = np.ones((6, 7), bool)
    regions = [Region("small", small), Region(None, crowd), Region("large", large)]
    values = {"small": 0, "large": 1}
    later = draw(regions, (6, 7), values, 9, 255, by_area=False)
    area = draw(regions, (6, 7), values, 9, 255, by_area=True)
    assert (later[2, 3], area[2, 3], later[0, 0], area[4, 0]) == (1, 0, 255, 1)


def test_sequences_stay_together(tmp_path):
    """--group puts all images of a group into one split; the seed chooses the groups."""
    names = [f"seq{n // 5}_{n}" for n in range(40)]
    splits = assign_splits(names, 0.2, 3, r"^(seq\d+)_")
    groups = {name.split("_")[0]: split for name, split in splits.items()}
    assert all(groups[name.split("_")[0]] == split for name, split in splits.items())
    assert list(splits.values()).count("val") == 10  # two whole groups of 5 for 8 wanted
    assert splits == assign_splits(names[::-1], 0.2, 3, r"^(seq\d+)_")
    assert splits != assign_splits(names, 0.2, 4, r"^(seq\d+)_")
    assert set(assign_splits(names, 0, 0, None).values()) == {"train"}
    with pytest.raises(ConfigError, match="does not match the name of image 'seq0_0'"):
        assign_splits(names, 0.2, 0, "city")


def test_colours_are_discovered_with_their_shares(tmp_path, capsys):
    source, _ = FORMATS["masks"](tmp_path / "source")
    assert import_data.main([str(source), "--out", str(tmp_path / "own")]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("#804080", "#00008e", "#000000"))
    assert load_dataset(tmp_path / "own/classes.yaml").classes[0].color == (0, 0, 0)


def spoil_masks(root, change):
    file = sorted((root / "masks").iterdir())[0]
    mask = np.array(Image.open(file))
    Image.fromarray(change(mask)).save(file)


def blur(mask):
    return cv2.imdecode(cv2.imencode(".jpg", mask)[1], cv2.IMREAD_COLOR)


def fray(mask):
    """Give 8 black pixels two colours near black, and one pixel a colour that is near none."""
    mask[0, :5], mask[1, :3], mask[2, 0] = (2, 0, 0), (0, 5, 0), (200, 200, 200)
    return mask


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        (True, "3 colours that no class has: (2, 0, 0) at 5 pixels, (0, 5, 0) at 3 pixels, "
               "(200, 200, 200) at 1 pixels; 2 of them near a class's: a lossy mask?"),
        (False, "2 of its 6 colours are near others: a mask changed by JPEG compression"),
    ],
)  # fmt: skip
def test_a_lossy_mask_is_refused_with_the_count(tmp_path, capsys, colors, message):
    source, options = FORMATS["masks"](tmp_path / "source")
    argv = [str(source), "--out", str(tmp_path / "own"), *(options if colors else [])]
    spoil_masks(source, fray)
    assert import_data.main(argv) == 2
    assert f"seq0_00_L.png: {message}" in capsys.readouterr().err
    spoil_masks(source, blur)
    assert import_data.main(argv) == 2
    assert re.search(r"seq0_00_L\.png: \d+ .*colours .* near ", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["source"], "something half-written"


WRONG = {
    "no such": (lambda p: p / "nowhere", "no such file or folder"),
    "empty": (lambda p: (p / "empty").mkdir() or p / "empty", "found no annotations"),
    "text": (lambda p: (p / "a.txt").write_text("") or p / "a.txt", "expected COCO's .json"),
    "json": (lambda p: (p / "a.json").write_text("[1, 2") and p / "a.json", "not a COCO"),
    "xml": (lambda p: (p / "a.xml").write_text("<a>") and p / "a.xml", "not an XML file"),
    "other xml": (lambda p: (p / "a.xml").write_text("<a/>") and p / "a.xml", "not 'CVAT for"),
    "bomb": (
        lambda p: (p / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a/>') and p / "a.xml",
        "a document type",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_annotation_is_one_sentence(tmp_path, capsys, kind):
    source = WRONG[kind][0](tmp_path)
    assert import_data.main([str(source), "--out", str(tmp_path / "own")]) == 2
    error = capsys.readouterr().err
    assert WRONG[kind][1] in error and error.count("\n") == 1
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [("7 0 0 1 0 1 1", "class 7, expected 0..2"), ("0 0 0 1", "three points"),
     ("0 0 0 640 0 640 480", "shares of the image"), ("car 0 0", "expected CLASS X Y")],
)  # fmt: skip
def test_a_wrong_line_of_yolo_has_its_number(tmp_path, capsys, line, message):
    source, _ = FORMATS["yolo"](tmp_path / "source")
    (source / "labels/seq0_00.txt").write_text(f"# first\n{line}\n")
    assert import_data.main([str(source), "--out", str(tmp_path / "own")]) == 2
    error = capsys.readouterr().err
    assert "seq0_00.txt: line 2: " in error and message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--val-share", "1.5"], "expected 0 to below 1"), (["--group", "("], "regular expression"),
     (["--group", "s"], "one group of images only")],
)  # fmt: skip
def test_wrong_options(tmp_path, capsys, options, message):
    assert run("yolo", tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.txt").write_text("mine")
    assert run("yolo", tmp_path) == 2
    assert "exists already and is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["mine.txt"]
