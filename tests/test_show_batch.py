"""The picture of a batch against the files that it was cut from."""

import cv2
import numpy as np

from configs.datasets import load_dataset
from tools import show_batch

CONFIG = """
[network]
cell = 2
[data]
dataset = camvid
patches = image
crop_hw = 48,64
val_split =
scales = 1
mirror = false
[solver]
batch_size = 2
"""


def test_the_grid_shows_crops_and_their_labels(tmp_path, capsys):
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    label = np.zeros((48, 64), np.uint8)  # sky
    label[16:32, 8:24] = 3  # road
    label[40:] = 11  # unlabelled
    for name, grey in (("a", 40), ("b", 200)):
        cv2.imwrite(
            str(tmp_path / f"images/train/{name}.png"), np.full((48, 64, 3), grey, np.uint8)
        )
        cv2.imwrite(str(tmp_path / f"labels/train/{name}.png"), label)
    (tmp_path / "c.cfg").write_text(CONFIG)
    out = tmp_path / "batch.png"
    options = ["--config", str(tmp_path / "c.cfg"), "--data-root", str(tmp_path), "--out", str(out)]
    assert show_batch.main(options) == 0
    grid = cv2.imread(str(out))[:, :, ::-1]
    gap = show_batch.GAP
    assert grid.shape[1] == 2 * (128 + gap)
    legend = grid[48 + gap :].reshape(-1, 3)  # has the colour of each class
    for row in load_dataset("camvid").train_classes:
        assert (legend == row.color).all(axis=1).sum() > 50
    first = 40 if grid[0, 0, 0] == 40 else 200
    for number, grey in enumerate((first, 240 - first)):
        left = number * (128 + gap)
        assert (grid[:48, left : left + 64] == grey).all()
        over = grid[:48, left + 64 : left + 128]
        assert over[20, 10].tolist() == [grey // 2 + c // 2 for c in (128, 64, 128)]
        assert over[2, 40].tolist() == [grey // 2 + 64] * 3
        assert over[15, 10].tolist() == over[2, 40].tolist() == over[20, 24].tolist()
        assert over[44, 5].tolist() == [grey // 3] * 3

    for more, said in (
        (["--batch", "1"], "--batch 1: an epoch has batches 0 to 0"),
        (["--epoch", "-1"], "--epoch -1: expected at least 0"),
        (["--out", "picture"], "--out picture: expected a name that ends in .png or .jpg"),
    ):
        assert show_batch.main([*options, *more]) == 2
        assert said in capsys.readouterr().err
