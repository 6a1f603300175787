r"""Put images, ground truth and predictions of several models side by side: figures 3 to 7.

Figures 3 and 4 (two models), 7 (without and with CRF):
  python tools/panels.py --dataset cityscapes --images leftImg8bit/val --ground-truth gtFine/val \
      --predictions results_a results_b --captions baseline DUC --frames frankfurt_000000_000294 \
      --out figure3.png
Figure 5 (a detail): the same with --crop TOP,LEFT,HEIGHT,WIDTH
Figure 6 (road in red):
  python tools/panels.py --dataset kitti --images testing/image_2 --predictions results \
      --overlay road --frames um_000000 uu_000012 --out figure6.png

A row per frame; predictions are those that tools/evaluate.py scores, or probability maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from data_iter.datasets import layout_of
from data_iter.errors import DataError
from data_iter.image_files import read_image, read_label
from data_iter.labels import to_train_ids
from data_iter.listing import IMAGE_SUFFIXES, LABEL_SUFFIXES
from tools.scoring.classes import values_kind
from tools.scoring.kitti import road_frame
from tools.shared.pairs import files, frame_name
from tools.shared.pictures import colours, overlay, shrink, tint
from tools.shared.probabilities import read_probabilities
from train.atomic import atomic_write
from train.legend import add_legend

GAP, CAPTION = 6, 18  # pixels: between panels, and height of the captions
PANEL_WIDTH = 640  # pixels at most
SURE = 128  # of 255: from this KITTI confidence on, a pixel is painted as road


def find(folder: Path, frame: str, suffixes: Sequence[str], dataset: DatasetSpec) -> Path:
    """Find a frame's file in a folder or below it; ``DataError`` unless there is exactly one."""

    def name(file: Path) -> str:
        if dataset.layout == "cityscapes":
            return frame_name(file)
        return road_frame(file.stem) if dataset.layout == "kitti" else file.stem

    wanted = name(Path(f"{frame}.png"))
    found = [f for f in files(folder, "**/*") if f.suffix.lower() in suffixes and name(f) == wanted]
    for suffix in suffixes:  # in the order of preference
        of_kind = [file for file in found if file.suffix.lower() == suffix]
        if dataset.layout == "cityscapes" and len(of_kind) > 1:
            of_kind = [file for file in of_kind if file.name.endswith("_labelIds.png")]
        if len(of_kind) == 1:
            return of_kind[0]
        if of_kind:
            raise DataError(f"{of_kind[0]}: {of_kind[1]} is of the same frame")
    raise DataError(f"{folder}: no file of frame {frame} in it")


def read_predictions(
    paths: Sequence[Path], dataset: DatasetSpec, values: str | None
) -> list[np.ndarray]:
    """Read predictions of one folder as train ids (H, W) uint8."""
    labels = {path: read_label(path) for path in paths if path.suffix.lower() == ".png"}
    kind = "train_id"
    if dataset.layout == "kitti":
        labels = {p: (m >= SURE).astype(np.uint8) if m.max() > 1 else m for p, m in labels.items()}
    elif labels:
        counts = {path: np.bincount(m.ravel(), minlength=256) for path, m in labels.items()}
        kind = values_kind(counts, dataset, values)
    if kind == "label_id":
        labels = {path: to_train_ids(m, dataset.label_lut, path) for path, m in labels.items()}
    return [
        labels[path]
        if path in labels
        else read_probabilities(path, dataset).argmax(axis=0).astype(np.uint8)
        for path in paths
    ]


def compose(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str]) -> Image.Image:
    """Arrange pictures (H, W, 3) uint8 RGB in rows and columns under a line of captions."""
    width = max(panel.shape[1] for row in rows for panel in row)
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    columns = len(rows[0])
    size = (columns * (width + GAP) - GAP, sum(heights) + GAP * (len(rows) - 1) + CAPTION)
    figure = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(figure)
    for column, caption in enumerate(captions):
        draw.text((column * (width + GAP), 2), caption, fill="black")
    top = CAPTION
    for row, height in zip(rows, heights):
        for column, panel in enumerate(row):
            figure.paste(Image.fromarray(panel), (column * (width + GAP), top))
        top += height + GAP
    return figure


def parse_crop(text: str | None) -> tuple[slice, slice]:
    """Read ``TOP,LEFT,HEIGHT,WIDTH``."""
    if text is None:
        return slice(None), slice(None)
    try:
        top, left, height, width = map(int, text.split(","))
    except ValueError:
        raise ConfigError(f"--crop {text}: expected TOP,LEFT,HEIGHT,WIDTH") from None
    if min(top, left) < 0 or min(height, width) < 1:
        raise ConfigError(f"--crop {text}: expected a place inside the image and a size above 0")
    return slice(top, top + height), slice(left, left + width)


def figure(args: argparse.Namespace, dataset: DatasetSpec) -> Image.Image:
    """Build the figure of the command line."""
    crop = parse_crop(args.crop)
    over_all = args.overlay == "all"
    one = class_of(args.overlay, dataset) if args.overlay and not over_all else None
    image_files = [find(args.images, frame, IMAGE_SUFFIXES, dataset) for frame in args.frames]
    paths = [
        [find(folder, frame, (".png", ".npz"), dataset) for frame in args.frames]
        for folder in args.predictions
    ]
    predictions = [read_predictions(of_model, dataset, args.values) for of_model in paths]
    rows = []
    for file, frame, *labels in zip(image_files, args.frames, *predictions):
        image = read_image(file)
        row = [] if one is not None else [(image, True)]
        if args.ground_truth:
            path = find(args.ground_truth, frame, LABEL_SUFFIXES, dataset)
            truth = layout_of(dataset.layout).read_label(path)
            row.append((colours(to_train_ids(truth, dataset.label_lut, path), dataset), False))
        for prediction in labels:
            if prediction.shape != image.shape[:2]:
                raise DataError(
                    f"{file}: the image is {image.shape[1]}x{image.shape[0]}, a prediction of it "
                    f"{prediction.shape[1]}x{prediction.shape[0]} (width x height)"
                )
            painted = colours(prediction, dataset)
            if one is not None:
                row.append((tint(image, prediction == one), True))
            else:
                row.append((overlay(image, painted), True) if over_all else (painted, False))
        if not image[crop].size:
            raise ConfigError(f"--crop {args.crop}: outside of {file}")
        rows.append([shrink(picture[crop], PANEL_WIDTH, photo) for picture, photo in row])
    captions = [] if one is not None else ["input"]
    captions += ["ground truth"] if args.ground_truth else []
    return compose(rows, [*captions, *(args.captions or [p.name for p in args.predictions])])


def class_of(name: str, dataset: DatasetSpec) -> int:
    """Train id of a class; ``ConfigError`` if there is no class of this name."""
    names = [row.name for row in dataset.train_classes]
    if name not in names:
        raise ConfigError(f"--overlay {name}: expected one of {', '.join(names)}")
    return names.index(name)


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", required=True, help="name or .yaml file of the class table")
    add("--images", required=True, type=Path, help="folder with the images, at any depth")
    add("--ground-truth", type=Path, help="folder with the label files, at any depth")
    add("--predictions", required=True, type=Path, nargs="+", help="a folder for each model")
    add("--captions", nargs="+", help="a word for each folder (default: its name)")
    add("--frames", required=True, nargs="+", help="names of the frames, one per row")
    add("--values", choices=("label_id", "train_id"), help="what predictions hold")
    add("--crop", metavar="TOP,LEFT,HEIGHT,WIDTH", help="show this part, in pixels")
    add("--overlay", metavar="CLASS", help="show the image with this class in red, or with all")
    add("--legend", action="store_true", help="show the classes' names and colours below")
    add("--out", required=True, type=Path, metavar="FILE", help="the figure, .png or .jpg")
    args = parser.parse_args(argv)
    if args.captions and len(args.captions) != len(args.predictions):
        raise ConfigError(f"--captions: expected {len(args.predictions)}, one for each folder")

    dataset = load_dataset(args.dataset)
    picture = figure(args, dataset)
    if args.legend:
        picture = Image.fromarray(add_legend(np.asarray(picture), dataset))
    kind = "JPEG" if args.out.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with atomic_write(args.out) as temporary:
        picture.save(temporary, format=kind, quality=90)
    print(f"{args.out}: {picture.width}x{picture.height}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
