r"""Make one self-contained HTML page of an evaluated folder of predictions, or draw curves.

  python tools/report.py --dataset cityscapes --images leftImg8bit/val --ground-truth gtFine/val \
      --predictions results --crf refined --out report.html
  python tools/report.py --dataset kitti --images training/image_2 --ground-truth training \
      --predictions results --out report.html
  python tools/report.py curves runs/duc_hdc runs/baseline --out curves.png
  python tools/report.py runs runs/duc_hdc runs/baseline --csv runs.csv

The page works offline. It shows the score table beside the paper's, IoU bars and confusion matrix,
and the best and worst images with input, ground truth, prediction, errors and CRF result side by
side. The images can be sorted, filtered by class and browsed by keyboard, also on a phone.
``curves`` draws loss, learning rate and mIoU of one or more runs. ``runs`` lists the differences of
their configurations, and their results.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse

from configs.datasets import load_dataset
from tools.reporting.evaluation import Evaluation
from tools.reporting.kitti import KittiEvaluation
from tools.reporting.page import SHOWN, write_page
from tools.reporting.runs import SCORES, compare, write_csv
from tools.shared.pairs import read_frames
from train.errors import RunError


@command
def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] not in ("page", "curves", "runs", "-h", "--help"):
        argv = ["page", *argv]
    args = _parser().parse_args(argv)
    return args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="page|curves|runs")
    page = commands.add_parser("page", help="of an evaluated folder (where no command is given)")
    page.set_defaults(run=_page)
    add = page.add_argument
    add("--dataset", required=True, help="name or .yaml file of the class table")
    add("--images", required=True, type=Path, help="folder with the images, at any depth")
    add("--ground-truth", required=True, type=Path, help="folder of label files")
    add("--predictions", required=True, type=Path, help="folder that tools/evaluate.py scores")
    add("--crf", type=Path, help="folder with the CRF's results")
    add("--names", type=Path, help="file with the frames to show and score, one per line")
    add("--values", choices=("label_id", "train_id"), help="what predictions hold")
    add(
        "--show",
        type=int,
        default=SHOWN,
        help=f"of the best, and of the worst (default: {SHOWN})",
    )
    add("--title", help="of the page (default: the data set's name)")
    add("--out", required=True, type=Path, metavar="FILE", help="the page, .html")
    curves = commands.add_parser("curves", help="loss, learning rate and mIoU of runs, as a PNG")
    curves.set_defaults(run=_curves)
    curves.add_argument("runs", nargs="+", type=Path, help="run folders")
    curves.add_argument("--out", default=Path("curves.png"), type=Path, metavar="FILE")
    _add_overwrite(curves)
    runs = commands.add_parser("runs", help="differences between runs, and their results")
    runs.set_defaults(run=_runs)
    runs.add_argument("runs", nargs="+", type=Path, help="run folders")
    runs.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to this file")
    _add_overwrite(runs)
    return parser


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="a file that is there already")


def _check_new(file: Path, overwrite: bool) -> None:
    if file.exists() and not overwrite:
        raise RunError(f"{file}: exists already; name another file, or give --overwrite")


def _page(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.dataset)
    kind = KittiEvaluation if dataset.layout == "kitti" else Evaluation
    names = read_frames(args.names, args.ground_truth)
    folders = (args.images, args.ground_truth, args.predictions, args.crf)
    evaluation = kind.of_folders(dataset, *folders, names, args.values)
    write_page(args.out, evaluation, args.title, max(args.show, 0))
    return 0


def _curves(args: argparse.Namespace) -> int:
    # Importing matplotlib fails without a writable temporary folder; the rest does not need it.
    from tools.reporting.curves import draw_curves

    _check_new(args.out, args.overwrite)
    draw_curves(args.runs, args.out)
    print(f"{args.out}: {len(args.runs)} run{'s' if len(args.runs) > 1 else ''}")
    return 0


def _runs(args: argparse.Namespace) -> int:
    if args.csv:
        _check_new(args.csv, args.overwrite)
    rows = compare(args.runs)
    if args.csv:  # before a reader of the output can leave
        write_csv(args.csv, rows)
    for row in rows:
        for column, value in row.items():
            if column in SCORES and isinstance(value, float):
                value = f"{100 * value:.2f} %" if "mIoU" in column else f"{value:.2f}"
            print(f"{column:<24} {'-' if value is None else value}")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
