r"""Score predictions, or a network: officially for benchmarks, with more measures for own data.

  python tools/evaluate.py --model runs/duc_hdc --data-root cityscapes --split val
  python tools/evaluate.py --dataset cityscapes --ground-truth gtFine/val --predictions results
  python tools/evaluate.py --dataset camvid --ground-truth labels/val --predictions results
  python tools/evaluate.py --dataset voc --ground-truth SegmentationClass --predictions results \
      --names ImageSets/Segmentation/val.txt
  python tools/evaluate.py --dataset kitti --ground-truth training --predictions confidences

Predictions are 8-bit PNGs of train ids or official label ids. KITTI road is scored in bird's-eye
view from 8-bit confidence PNGs (0..255) or saved probability maps, either in the image's
perspective or as 800x400 bird's-eye views. Other class tables also get precision, recall, Dice and
boundary IoU (docs/own-data.md). Scores are in % on the screen and from 0 to 1 in --json FILE. A
missing, extra, wrong-sized or out-of-range prediction is an error. --model scores the network's
predictions without writing them, to the same digits; --epoch all does so for every epoch whose
parameters are in the run folder, and --report FILE also writes the HTML page of report.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # sets thread counts before anything loads

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.datasets import load_dataset
from configs.errors import ConfigError
from tools.scoring.classes import MEASURES
from tools.scoring.folder import score_folder
from tools.shared.options import read_epoch
from tools.shared.pairs import read_frames
from train.atomic import atomic_write
from train.errors import RunError


def print_scores(result: dict[str, Any], console: Console) -> None:
    """Print the tables of :func:`score_folder`'s result."""
    if "classes" not in result:
        _print_kitti(result, console)
        return
    columns = {key: name for key, name in MEASURES.items() if f"mean_{key}" in result}
    table = Table(
        title=f"{result['dataset']}: {result['images']} images, {result['values']} values"
    )
    table.add_column("class")
    for heading in (*(f"{name} %" for name in columns.values()), "valid pixels"):
        table.add_column(heading, justify="right")
    for row in result["classes"]:
        scores = (_percent(row[key]) for key in columns)
        table.add_row(row["name"], *scores, f"{row['valid_pixels']:,}")
    table.add_section()
    means = (_percent(result[f"mean_{key}"]) for key in columns)
    table.add_row("mean", *means, f"{result['valid_pixels']:,}")
    if "categories" in result:
        table.add_section()
        for row in result["categories"]:
            table.add_row(row["name"], *(_percent(row[key]) for key in columns if key in row))
        table.add_section()
        keys = [f"mean_category_{key}" for key in columns]
        means = (_percent(result[key]) for key in keys if key in result)
        table.add_row("mean of categories", *means)
    console.print(table)
    console.print(f"mIoU {_percent(result['mean_iou'])} %", highlight=False)
    console.print(f"pixel accuracy {_percent(result['pixel_accuracy'])} %", highlight=False)
    if "frequency_weighted_iou" in result:
        weighted = _percent(result["frequency_weighted_iou"])
        console.print(f"frequency-weighted IoU {weighted} %", highlight=False)
    _print_absent(result, console)
    _print_confusion(result, console)


def _print_confusion(result: dict[str, Any], console: Console) -> None:
    """Print the predictions of each true class, in % of its pixels; columns' names run down."""
    names = [row["name"][:15] for row in result["classes"]]
    lines = ["where the pixels of each class went, %"]
    height = max(map(len, names))
    for letters in zip(*(name.rjust(height) for name in names)):
        lines.append((f"{'':<18}" + "".join(f"{letter:>4}" for letter in letters)).rstrip())
    lines.append(f"{'':<18}" + "".join(f"{number:>4}" for number in range(len(names))) + "  none")
    for number, (row, counts) in enumerate(zip(result["classes"], result["confusion"])):
        total = max(sum(counts), 1)
        cells = "".join(f"{100 * count / total:>4.0f}" for count in counts[:-1])
        lines.append(f"{number:>2} {row['name']:<15.15}{cells}{100 * counts[-1] / total:>6.0f}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _print_absent(result: dict[str, Any], console: Console) -> None:
    rows = result["classes"]
    absent = [row["name"] for row in rows if row["iou"] is None]
    unseen = [row["name"] for row in rows if not row["valid_pixels"] and row["iou"] == 0]
    official = " (officially this mean is NaN)" if result["dataset"] == "voc" else ""
    for names, meaning in (
        (absent, f"neither in the ground truth nor predicted, left out of the mean{official}"),
        (unseen, "not in the ground truth but predicted, counted as IoU 0"),
    ):
        if names:
            console.print(f"{meaning}: {', '.join(names)}", highlight=False, soft_wrap=True)


def _print_kitti(result: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{result['dataset']}: {result['images']} images, bird's-eye view, %")
    table.add_column("category")
    columns = ("max_f", "ap", "pre", "rec", "fpr", "fnr")
    for heading in ("frames", "MaxF", *(column.upper() for column in columns[1:])):
        table.add_column(heading, justify="right")
    for row in result["categories"]:
        table.add_row(
            row["name"], str(row["frames"]), *(_percent(row[column]) for column in columns)
        )
    console.print(table)


def _percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.2f}"


FOLDERS = ("dataset", "ground_truth", "predictions")


def check_together(args: argparse.Namespace) -> None:
    """Raise ``ConfigError`` unless the options name predictions, or a model and its data set."""
    given = [name for name in (*FOLDERS, "names", "values") if getattr(args, name)]
    if args.model and (given or not args.data_root):
        raise ConfigError(
            "--model needs --data-root, and goes without "
            + ", ".join(map(option, given or FOLDERS))
        )
    missing = [name for name in FOLDERS if not getattr(args, name)]
    if not args.model and missing:
        raise ConfigError(f"{option(missing[0])} is needed, or --model with --data-root")
    if args.report and (not args.model or args.epoch == "all"):
        raise ConfigError(
            "--report needs --model, and goes without --epoch all; report.py makes the page of a "
            "folder of predictions"
        )


def option(name: str) -> str:
    """Write an option as on the command line."""
    return f"--{name.replace('_', '-')}"


def score_model(args: argparse.Namespace, epoch: int | str) -> dict[str, Any]:
    """Score the parameters of one epoch."""
    # These load MXNet, which is not needed to score files.
    from tools.inference.predictor import load
    from tools.scoring.network import score_network

    network = load(args.model, epoch=epoch, context=contexts(args.gpus)[0])
    if args.report:
        from tools.reporting.network import evaluate_network
        from tools.reporting.page import write_page

        evaluation = evaluate_network(network, args.data_root, args.split)
        write_page(args.report, evaluation, f"{network.dataset.name}: {args.model}")
        return evaluation.official
    return score_network(network, args.data_root, args.split)


def score_epochs(args: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Score every epoch of a run folder; print one line for each."""
    from train.run_dir import RunDir

    epochs = RunDir(args.model).epochs()
    if not epochs:
        raise RunError(f"{args.model}: a run folder with parameters is needed for --epoch all")
    results = []
    for epoch in epochs:
        result = {"epoch": epoch, **score_model(args, epoch)}
        mean = result["mean_iou"] if "mean_iou" in result else result["categories"][-1]["max_f"]
        what = "mIoU" if "mean_iou" in result else "MaxF"
        console.print(f"epoch {epoch}: {what} {_percent(mean)} %", highlight=False)
        results.append(result)
    return results


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", help="cityscapes, kitti, voc, camvid, or one's own .yaml table"
    )
    parser.add_argument("--ground-truth", type=Path, help="folder of label files")
    parser.add_argument("--predictions", type=Path, help="folder of predictions")
    parser.add_argument("--model", type=Path, help="run folder or ONNX file to score")
    parser.add_argument("--epoch", default="last", metavar="best|last|all|N", help="of --model")
    parser.add_argument("--data-root", type=Path, help="folder of the data set, for --model")
    parser.add_argument("--split", default="val", help="of --data-root (default: val)")
    parser.add_argument("--gpus", help="number of the GPU for --model (default: the first, if any)")
    parser.add_argument("--names", type=Path, help="file with the frames to score, one per line")
    parser.add_argument(
        "--values",
        choices=("label_id", "train_id"),
        help="what predictions hold (default: by their values)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores there too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML page, for --model")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)

    check_together(args)
    console = Console(markup=False)
    if args.model and args.epoch == "all":
        result = score_epochs(args, console)
    elif args.model:
        result = score_model(args, read_epoch(args.epoch))
    else:
        result = score_folder(
            load_dataset(args.dataset),
            args.ground_truth,
            args.predictions,
            read_frames(args.names, args.ground_truth),
            args.values,
        )
    if args.json:  # before a reader of the output can leave
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
    if isinstance(result, dict):
        print_scores(result, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
