"""Own data: from exports in five formats to a report, and how training treats unusual data."""

import json
import shutil

import cv2
import numpy as np
import pytest
import training
from annotations import FORMATS

from configs.loader import load_config
from tools import evaluate, import_data, predict, prepare_data, report

PROJECT = training.PROJECT


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_becomes_a_network_and_a_report(tmp_path, capsys, kind):
    source, options = FORMATS[kind](tmp_path / "source")
    own, run, predictions = tmp_path / "own", tmp_path / "run", tmp_path / "predictions"
    table = str(own / "classes.yaml")
    assert import_data.main([str(source), "--out", str(own), *options]) == 0
    assert prepare_data.main(["check", "--dataset", table, "--data-root", str(own)]) == 0
    done = training.call(
        tmp_path,
        ["--config", str(PROJECT / "configs/own.cfg"), "--data-root", str(own), "--out", str(run),
         f"--set=data.dataset={table}", "--set=data.crop_hw=48,64", "--set=solver.epochs=2"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [weights] = [line for line in done.stderr.splitlines() if "solver.class_weights: " in line]
    assert "parameters loaded" in done.stderr and "road " in weights
    config = load_config(run / "config.cfg")
    assert len(config.solver.class_weights) >= 2
    images = str(own / "images/val")
    assert predict.main([images, "--model", str(run), "--out", str(predictions)]) == 0
    folders = ["--ground-truth", str(own / "labels/val"), "--predictions", str(predictions)]
    scores, page = tmp_path / "scores.json", tmp_path / "report.html"
    assert evaluate.main(["--dataset", table, *folders, "--json", str(scores)]) == 0
    assert report.main(
        ["--dataset", table, "--images", images, *folders, "--out", str(page)]
    ) == 0  # fmt: skip
    assert json.loads(scores.read_text())["images"] == 2
    assert "car [parked]" in capsys.readouterr().out
    assert "car [parked]" in page.read_text()


@pytest.fixture
def root(tmp_path):
    return training.write_frames(tmp_path / "data", train=8, val=2)


def strict(text):
    """Read JSON, but refuse the NaN that Python accepts and the standard forbids."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_weights_come_from_the_training_labels(root, tmp_path):
    for number in range(8):
        label = np.full((40, 56), 255, np.uint8)
        label[:20], label[20:25] = 0, 1  # 4 : 1
        cv2.imwrite(str(root / f"labels/train/{number:02}.png"), label)
    ended = training.train(root, tmp_path / "run", solver__class_weights="auto", solver__epochs=2)
    assert ended.returncode == 0, ended.stderr
    # Median share 0.5: sqrt(0.5 / 0.8), sqrt(0.5 / 0.2); divided by their mean over the pixels.
    raw = np.sqrt([0.5 / 0.8, 0.5 / 0.2])
    expected = [float(f"{weight:.3g}") for weight in raw / (0.8 * raw[0] + 0.2 * raw[1])]
    weights = load_config(tmp_path / "run/config.cfg").solver.class_weights
    assert weights == (*expected, *[1.0] * 9)
    again = training.train(
        root, tmp_path / "run", "--resume", solver__class_weights="auto", solver__epochs=2
    )
    assert again.returncode == 0, again.stderr


def test_all_is_every_epoch_however_many():
    for name in ("toy", "camvid"):
        config = load_config(PROJECT / f"configs/{name}.cfg", ["solver.epochs=3"])
        assert config.solver.learn_bn_epochs == config.solver.epochs == 3
    own = load_config(PROJECT / "configs/own.cfg", ["solver.epochs=3"]).solver
    assert (own.epochs, own.learn_bn_epochs, own.class_weights) == (3, 0, ("auto",))
    config = load_config(PROJECT / "configs/toy.cfg", ["solver.learn_bn_epochs=all"])
    assert config.solver.learn_bn_epochs == config.solver.epochs


def test_a_run_does_not_go_on_with_other_images_or_labels(root, tmp_path):
    settings = {"solver__epochs": 2, "data__compare_labels": "true"}
    first = training.train(root, tmp_path / "run", **settings)
    assert first.returncode == 0, first.stderr
    file = root / "labels/train/05.png"
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    label[5, 7] = (label[5, 7] + 1) % 11
    cv2.imwrite(str(file), label)
    changed = training.train(root, tmp_path / "run", "--resume", **settings)
    assert changed.returncode == 2
    assert "begun with other training labels: their content differs" in changed.stderr
    for kind in ("images", "labels"):
        (root / kind / "train/03.png").rename(root / kind / "train/other.png")
    changed = training.train(root, tmp_path / "run", "--resume", **settings)
    assert changed.returncode == 2
    assert "begun with other training images: their names or sizes differ" in changed.stderr
    meant = training.train(root, tmp_path / "run", "--resume", "--allow-changes", **settings)
    assert meant.returncode == 0, meant.stderr


def test_labels_that_are_all_ignored_are_null_and_said_once(root, tmp_path):
    for split in ("train", "val"):
        for file in (root / "labels" / split).iterdir():
            cv2.imwrite(str(file), np.full((40, 56), 11, np.uint8))
    ended = training.train(root, tmp_path / "run", solver__epochs=3)
    assert ended.returncode == 0, ended.stderr
    lines = [strict(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {line["train_miou"] for line in lines if "loss" in line} == {None}
    assert {line["val_miou"] for line in lines if "val_iou" in line} == {None}
    strict((tmp_path / "run/checkpoints.json").read_text())
    assert ended.stderr.count("the validation split: every label pixel is ignored") == 1
    assert ended.stderr.count("the crops: no pixel of them has a class") == 1
    assert "NaN" not in ended.stderr
    auto = training.train(root, tmp_path / "auto", solver__class_weights="auto")
    assert auto.returncode == 2
    assert "every pixel of the training labels is ignored" in auto.stderr


def test_a_missing_label_is_skipped_where_that_is_asked_for(root, tmp_path):
    (root / "labels/train/03.png").unlink()
    shutil.copy(root / "labels/train/04.png", root / "labels/train/nobody.png")
    stopped = training.train(root, tmp_path / "run")
    assert stopped.returncode == 2 and "03.png: the image has no label" in stopped.stderr
    assert not (tmp_path / "run").exists()
    skip = {"data__on_bad_sample": "skip", "data__max_bad_share": 0.2}
    skipped = training.train(root, tmp_path / "run", solver__epochs=2, **skip)
    assert skipped.returncode == 0, skipped.stderr
    assert "skipped (1 so far): " in skipped.stderr and "03.png" in skipped.stderr
    left = "split train: left out, labels without an image: labels/train/nobody.png"
    assert left in skipped.stderr
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert max(json.loads(line).get("epoch", 0) for line in lines) == 2


def test_the_default_run_folder_names_config_and_data_set(root):
    table = (PROJECT / "configs/datasets/camvid.yaml").read_text()
    (root / "mine.yaml").write_text(table.replace("name: camvid", "name: mine"))
    without_out = [part for part in training.command(root, "x")[2:] if part not in ("--out", "x")]
    options = ["--set=solver.epochs=2", f"--set=data.dataset={root / 'mine.yaml'}"]
    done = training.call(root, [*without_out, *options])
    assert done.returncode == 0, done.stderr
    assert (root / "runs/tiny-mine/config.cfg").is_file()


def test_a_missing_folder_of_a_result_is_made_and_numbers_are_asked_for_in_english(root, capsys):
    labels, out = str(root / "labels/val"), root / "deep/er/scores.json"
    options = ["--dataset", "camvid", "--ground-truth", labels, "--predictions", labels]
    assert evaluate.main([*options, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["images"] == 2
    assert predict.main([str(root / "images"), "--scales", "1,x", "--out", str(root / "p")]) == 2
    assert "--scales 1,x: expected numbers separated by commas" in capsys.readouterr().err
    assert not (root / "p").exists()
