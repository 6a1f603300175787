"""Faults that prepare_data.py check finds by comparing files, and how it prints them."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from configs.datasets import load_dataset
from tools import prepare_data
from tools.dataset.check import Problem, grouped
from tools.dataset.suspicions import foreign_palette

TABLE = "name: mine\nclasses:\n  - {name: road, color: [255, 0, 0]}\n"
TABLE += "  - {name: car, color: [0, 0, 255]}\n"
TABLE += "".join(f"  - c{n}\n" for n in range(2, 8))


@pytest.fixture
def root(tmp_path):
    """Write 24 training frames with a road, a car and a third class, and 3 validation frames."""
    random = np.random.default_rng(2)
    for split, count in (("train", 24), ("val", 3)):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((30, 41), np.uint8)
            label[5:20, int(random.integers(0, 9)) : 30] = 1
            label[22:27, 3:9] = 6
            image = cv2.resize(random.integers(0, 255, (6, 8, 3), np.uint8), (41, 30))
            cv2.imwrite(str(tmp_path / f"images/{split}/{split}{number}.png"), image)
            cv2.imwrite(str(tmp_path / f"labels/{split}/{split}{number}.png"), label)
    (tmp_path / "mine.yaml").write_text(TABLE)
    return tmp_path


def check(root, capsys):
    code = prepare_data.main(
        ["check", "--dataset", str(root / "mine.yaml"), "--data-root", str(root)]
    )
    return code, capsys.readouterr().out


def test_frames_that_are_alike_raise_no_suspicion(root, capsys):
    assert check(root, capsys)[0] == 0
    assert "nothing is wrong" in check(root, capsys)[1]


def test_labels_shifted_by_one_inside_the_table_are_to_be_looked_at(root, capsys):
    for number in range(6):
        file = root / f"labels/train/train{number}.png"
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED) + 1)
    code, out = check(root, capsys)
    found = [line for line in out.splitlines() if "stand apart" in line]
    assert code == 0
    assert len(found) == 6 and all(f"train{n}.png" in "".join(found) for n in range(6))
    assert "counted from one more; look at it" in found[0]
    assert "look at the 6 lines above" in out


def test_a_training_frame_in_val_is_found(root, capsys):
    for kind in ("images", "labels"):
        shutil.copy(root / kind / "train/train3.png", root / kind / "val/copied.png")
    code, out = check(root, capsys)
    assert code == 1
    assert "copied.png: in two splits: the same image as" in out and "train3.png" in out


def test_a_training_frame_compressed_anew_is_to_be_looked_at(root, capsys):
    image = cv2.imread(str(root / "images/train/train3.png"))
    cv2.imwrite(str(root / "images/val/again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    shutil.copy(root / "labels/train/train3.png", root / "labels/val/again.png")
    code, out = check(root, capsys)
    assert code == 0
    assert "again.jpg: nearly the same image as" in out


@pytest.mark.parametrize(
    ("palette", "code"), [([255, 0, 0, 0, 0, 255], 0), ([0, 0, 255, 255, 0, 0], 1)]
)
def test_a_palette_that_disagrees_with_the_table_is_a_problem(root, capsys, palette, code):
    for file in sorted((root / "labels/train").iterdir()):
        picture = Image.fromarray(np.asarray(Image.open(file)))
        picture.putpalette(palette + [7, 7, 7] * 6)
        picture.save(file)
    found, out = check(root, capsys)
    assert found == code
    assert ("0 (road) in that of car, 1 (car) in that of road" in out) == bool(code)


def test_a_label_without_an_image_is_a_problem_and_one_cause_is_one_line(root, capsys):
    for number in range(20):
        (root / f"labels/train/train{number}.png").unlink()
    shutil.copy(root / "labels/train/train23.png", root / "labels/train/nobody.png")
    code, out = check(root, capsys)
    assert code == 1
    assert "1 label files without an image: labels/train/nobody.png" in out
    lines = [line for line in out.splitlines() if "no label; expected" in line]
    assert len(lines) == 1 and "[20 files: train" in lines[0] and "and 16 more" in lines[0]


def test_problems_of_other_causes_stay_apart(tmp_path):
    lines = grouped(
        [Problem("holes", tmp_path / "a.png"), Problem("split train: few"),
         Problem("3 holes", tmp_path / "b.png"), Problem("4 holes", tmp_path / "c.png")]
    )  # fmt: skip
    assert lines == [
        f"{tmp_path}/a.png: holes",
        "split train: few",
        f"{tmp_path}/b.png: 3 holes [2 files: c.png]",
    ]


@pytest.mark.parametrize("name", ["lane [/solid]", "[unlabeled]", "[bold red]x"])
def test_brackets_in_names_are_printed_as_they_are(root, capsys, name):
    (root / "mine.yaml").write_text(TABLE.replace("name: road", f'name: "{name}"'))
    code, out = check(root, capsys)
    assert code == 0
    assert name in out
    assert load_dataset(root / "mine.yaml").classes[0].name == name


def test_the_ignored_value_may_have_any_colour(tmp_path):
    spec = load_dataset("voc")
    counts = np.zeros(256, np.int64)
    counts[[0, 15, 255]] = 1
    file = tmp_path / "label.png"
    for void in ((0, 0, 0), (192, 128, 128)):
        palette = spec.palette.copy()
        palette[255] = void
        image = Image.fromarray(np.uint8([[0, 15, 255]]), "P")
        image.putpalette(palette.tobytes())
        image.save(file)
        assert foreign_palette(file, counts, spec) == ""
    palette[[0, 15]] = palette[[15, 0]]
    image.putpalette(palette.tobytes())
    image.save(file)
    assert "0 (background) in that of person" in foreign_palette(file, counts, spec)


def test_brackets_in_a_split_are_shown_in_the_progress_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    for kind in ("images", "labels"):
        (tmp_path / kind / "[red]old").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / kind / "[red]old/a.png"), np.zeros((9, 12), np.uint8))
    (tmp_path / "own.yaml").write_text("name: own\nclasses: [road]\n")
    check = ["check", "--dataset", str(tmp_path / "own.yaml"), "--data-root", str(tmp_path)]
    assert prepare_data.main(check) == 0
    assert "Reading [red]old" in capsys.readouterr().err
