"""Watching a training: TensorBoard's event files and the learning curves."""

import dataclasses
import io
import json
import struct

import cv2
import numpy as np
import pytest
import training
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny_run import make_run

from configs.datasets import load_dataset
from configs.schema import Experiment
from tools import report
from tools.reporting import curves
from train.reporter import Reporter
from train.run_dir import RunDir
from train.tensorboard import PICTURE_HEIGHT, Board, strip


def events(folder):
    """Read event files with nothing but the definition of TFRecord: length, crc, data, crc."""
    found = []
    for file in sorted(folder.glob("events.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_a_training_shows_its_curves_and_what_it_predicts(tmp_path):
    root = training.write_frames(tmp_path / "data", train=8, val=2, hw=(40, 56))
    ended = training.train(root, tmp_path / "out", "--set=solver.epochs=2")
    assert ended.returncode == 0, ended.stderr
    seen = {}
    for event in events(tmp_path / "out" / "tensorboard"):
        for value in event.summary.value:
            seen.setdefault(value.tag, []).append((event.step, value))
    records = training.log(tmp_path / "out")
    for tag in ("lr", "loss", "train_miou"):
        expected = [(r["iteration"], r[tag]) for r in records if tag in r]
        found = [(step, value.simple_value) for step, value in seen[tag]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [step for step, _ in seen["val_miou"]] == [2, 4]  # two batches of four an epoch
    sky = [r["val_iou"][0] for r in records if "val_iou" in r]
    assert [value.simple_value for _, value in seen["val_iou/sky"]] == pytest.approx(sky)
    pictures = [value.image for number in (0, 1) for _, value in seen[f"validation/{number}"]]
    assert len(pictures) == 4
    assert {p.width for p in pictures} == {3 * 56}
    image = np.array(Image.open(io.BytesIO(pictures[0].encoded_image_string)))
    frame = cv2.imread(str(root / "images/val/00.png"))[:, :, ::-1]
    np.testing.assert_array_equal(image[:40, :56], frame)
    legend = image[40:].reshape(-1, 3)
    for row in load_dataset("camvid").train_classes:
        assert (legend == row.color).all(axis=1).sum() > 50


def test_runs_are_compared_by_what_differs(tmp_path, capsys):
    for name, cell, scores in (("a", 2, (0.25, 0.5, 0.375)), ("b", 4, (0.75,)), ("c", 2, ())):
        run = make_run(tmp_path / name, cell=cell)
        for epoch, score in enumerate(scores, start=1):
            cost = {"seconds": 1800.0, "memory_mb": 1000 * epoch}
            speed = {"samples_per_second": float(epoch)}
            run.log.append(epoch=epoch, iteration=epoch, loss=1.0, **speed, **cost)
            run.log.append(epoch=epoch, val_miou=score, seconds=900.0)
        if not scores:
            run.log.append(epoch=1, iteration=1, loss=1.0)
    folders = [str(tmp_path / name) for name in "abc"]
    assert report.main(["runs", *folders, "--csv", str(tmp_path / "runs.csv")]) == 0
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    scores = "best mIoU,best epoch,last mIoU,epochs,samples/s,hours,memory GB"
    assert lines[0] == f"run,network.cell,{scores}"
    assert lines[1:] == [
        f"{folders[1]},4,0.75,1,0.75,1,1.0,0.75,1.0",
        f"{folders[0]},2,0.5,2,0.375,3,2.0,2.25,3.0",
        f"{folders[2]},2,,,,1,,,",
    ]
    said = capsys.readouterr().out
    assert said.count("network.cell") == 3 and f"{'last mIoU':<24} 37.50 %" in said
    assert report.main(["runs", *folders, "--csv", str(tmp_path / "runs.csv")]) == 2
    assert "runs.csv: exists already" in capsys.readouterr().err
    assert report.main(["runs", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_resumed_run_hides_the_events_that_it_repeats(tmp_path):
    for iteration in (0, 7):
        board = Board(tmp_path, iteration)
        board.scalars(iteration + 1, {"loss": 1.0})
        board.close()
    starts = [e for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert sorted(event.step for event in starts) == [1, 8]
    # TensorBoard drops earlier records from the step of such a record on.
    assert {event.session_log.status for event in starts} == {SessionLog.START}


@pytest.mark.parametrize("validated", [True, False])
def test_the_epochs_bar_begins_again_with_each_epoch(validated):
    reporter, dataset = Reporter(None, epochs=2, iterations=4, done=0), load_dataset("camvid")
    scores = {"val_miou": 0.5, "val_pixel_accuracy": 0.5, "val_iou": [0.5] * dataset.num_classes}
    seen = []
    for iteration in range(1, 5):
        reporter.step(1)
        if validated and iteration % 2 == 0:
            reporter.validation(iteration // 2, iteration, scores)
        bars = reporter._bar.tasks[:2]
        seen.append([f"{bar.description} {bar.completed:g}/{bar.total:g}" for bar in bars])
    assert seen == [
        ["training 1/4", "epoch 1/2"], ["training 2/4", "epoch 2/2"],
        ["training 3/4", "epoch 1/2"], ["training 4/4", "epoch 2/2"],
    ]  # fmt: skip


def test_strips_are_image_truth_and_prediction_and_not_too_high():
    palette = np.zeros((256, 3), np.uint8)
    palette[1], palette[2] = (10, 20, 30), (40, 50, 60)
    truth, predicted = (np.full((3, 5), train_id, np.uint8) for train_id in (1, 2))
    small = strip(np.full((3, 5, 3), 7, np.uint8), truth, predicted, palette)
    assert small.shape == (3, 15, 3)
    assert small[0, ::5].tolist() == [[7, 7, 7], [10, 20, 30], [40, 50, 60]]
    large = np.zeros((2 * PICTURE_HEIGHT, 100), np.uint8)
    picture = strip(np.zeros((*large.shape, 3), np.uint8), large, large, palette)
    assert picture.shape == (PICTURE_HEIGHT, 150, 3)


def write_log(run, *records):
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def test_curves_of_two_runs_are_drawn(tmp_path):
    runs = [
        write_log(
            tmp_path / name,
            {"epoch": 1, "iteration": 20, "lr": 0.1, "loss": 2.0, "train_miou": 0.1},
            {"epoch": 1, "val_miou": 0.2, "val_iou": [0.2, None]},
            {"epoch": 2, "iteration": 40, "lr": 0.05, "loss": scale, "train_miou": 0.3},
        )
        for name, scale in (("a", 1.0), ("b", 0.5))
    ]
    assert [r["iteration"] for r in RunDir(runs[0]).log.read()] == [20, 20, 40]
    for name, drawn in (("both", runs), ("one", runs[:1])):
        assert (
            report.main(["curves", *map(str, drawn), "--out", str(tmp_path / f"{name}.png")]) == 0
        )
    both, one = (np.array(Image.open(tmp_path / f"{name}.png")) for name in ("both", "one"))
    assert both.shape == one.shape and both.std() > 0
    assert not np.array_equal(both, one)


def test_a_picture_that_is_there_is_not_overwritten_unasked(tmp_path, capsys):
    run = write_log(tmp_path / "a", {"epoch": 1, "iteration": 20, "lr": 0.1, "loss": 2.0})
    out = tmp_path / "curves.png"
    out.write_text("mine")
    command = ["curves", str(run), "--out", str(out)]
    assert report.main(command) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "mine"
    assert report.main([*command, "--overwrite"]) == 0
    assert Image.open(out).format == "PNG"


def test_seeds_of_one_configuration_are_a_band(tmp_path):
    folders = []
    for name, seed, cell, losses in (("a", 0, 2, (4.0, 2.0)), ("b", 0, 4, (9.0, 9.0)),
                                     ("c", 1, 2, (1.0, 5.0, 7.0))):  # fmt: skip
        run = make_run(tmp_path / name, cell=cell)
        config, dataset = run.load()
        run.describe(dataclasses.replace(config, experiment=Experiment(seed=seed)), dataset)
        for number, loss in enumerate(losses, start=1):
            run.log.append(epoch=1, iteration=10 * number, loss=loss)
        folders.append(run.path)
    alone = write_log(tmp_path / "log", {"epoch": 1, "iteration": 10, "loss": 1.0})
    a, b, c = folders
    assert curves.by_seed([*folders, alone]) == [[a, c], [b], [alone]]
    found = curves.band([curves.read_curves(run)["loss"] for run in (a, c)])
    assert found.tolist() == [[10, 20], [2.5, 3.5], [1, 2], [4, 5]]  # c alone has iteration 30
    drawn = [str(folder) for folder in folders]
    assert report.main(["curves", *drawn, "--out", str(tmp_path / "curves.png")]) == 0


@pytest.mark.parametrize(
    "text, expected", [(None, "has no log.jsonl"), ("", "is empty"), ("{}\n{", "line 2")]
)
def test_a_run_without_a_usable_log_is_named(tmp_path, capsys, text, expected):
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    assert report.main(["curves", str(tmp_path), "--out", str(tmp_path / "curves.png")]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "curves.png").exists()
