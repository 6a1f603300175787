r"""Turn annotations into a data set to train on, with its class table.

  python tools/import_data.py annotations.json --images photos --out data
  python tools/import_data.py FOLDER --out data --val-share 0.15 --group '^(drive_[0-9]+)'

SOURCE is COCO's .json, CVAT's .xml (CVAT for images 1.1), or a folder: of LabelMe's *.json beside
the images, of YOLO segmentation (data.yaml, images/, labels/) or of colour masks (images/NAME.*,
masks/NAME.png).

The files decide the format. DIR gets images/{train,val}, labels/{train,val} and classes.yaml.
YOLO's own split (folders train, val or valid, test) is used unless --val-share or --group is given.
At the end the command prints the pixels of each class, and everything that was left out with the
reason. The source is not changed. --colors names the colours of masks (a class table, or lines RED
GREEN BLUE NAME); without it, all colours that occur are named by their numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse

from rich.console import Console
from rich.table import Table

from tools.dataset.importing import (
    IGNORE_ID,
    TABLE,
    VAL_SHARE,
    Imported,
    check_names,
    choose_splits,
    drop_turned,
    read_source,
    write,
)


def print_result(result: Imported, left_out: dict[str, list[str]]) -> None:
    """Print the pixels of each class in each split, and the names of what was left out."""
    console = Console(markup=False, highlight=False)
    table = Table("value", "class", *(f"{split}, % of pixels" for split in result.pixels))
    names = {row.id: row.name for row in result.spec.classes} | {IGNORE_ID: "(ignored)"}
    for value, name in names.items():
        shares = [100 * counts[value] / max(counts.sum(), 1) for counts in result.pixels.values()]
        table.add_row(str(value), name, *(f"{share:.3f}" for share in shares))
    console.print(table)
    for reason, entries in left_out.items():
        print(f"left out, {reason} ({len(entries)}): {', '.join(sorted(set(entries)))}")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, help="COCO's .json, CVAT's .xml, or a folder")
    add("--out", required=True, type=Path, metavar="DIR", help="new folder for the data set")
    add("--images", type=Path, metavar="DIR", help="folder of the images, if not beside")
    add("--colors", type=Path, metavar="FILE", help="colour masks: the colours of the classes")
    add(
        "--unlabelled",
        default="ignore",
        metavar="CLASS",
        help="what pixels outside of all regions are (default: ignored in training)",
    )
    add(
        "--overlap",
        choices=("later", "area"),
        default="later",
        help="later regions cover earlier ones (default), or smaller ones larger ones",
    )
    add(
        "--val-share",
        type=float,
        help=f"of the images, to validate on (default {VAL_SHARE}, or YOLO's own split)",
    )
    add("--seed", type=int, default=0, help="draws the images to validate on (default 0)")
    add("--group", metavar="REGEX", help="keep images together whose names match the same text")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)

    kind, source = read_source(args.source, args.images, args.colors)
    drop_turned(source)
    check_names(source)
    splits, how = choose_splits(source, args.val_share, args.seed, args.group)
    result = write(source, args.out, splits, args.unlabelled, args.overlap == "area")
    print_result(result, source.left_out)
    over = "smaller regions over larger" if args.overlap == "area" else "later regions over earlier"
    test = f", {result.frames['test']} to test" if "test" in result.frames else ""
    print(
        f"{args.out}: {kind}: {result.frames['train']} images to train on, {result.frames['val']} "
        f"to validate{test} ({how}); {over}; classes in {args.out / TABLE}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
