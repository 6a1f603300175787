"""Check a data set before a long run, pack it for fast loading, or turn COCO into VOC labels.

    python tools/prepare_data.py check --dataset cityscapes --data-root DIR
    python tools/prepare_data.py pack --dataset cityscapes --data-root DIR --out PACKED [--jpeg 95]
    python tools/prepare_data.py coco --data-root COCO --split train2017 --out DIR

check (the default) reads every file and reports each fault with its likely cause; it exits with 1
if there is a fault. pack writes RecordIO that train_model.py takes as --data-root; after an
interruption the same command continues. Neither changes the data set.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from data_iter.datasets import find_samples, layout_of
from data_iter.errors import DataError
from data_iter.frames import FileFrames
from data_iter.listing import SHOWN, shortened
from data_iter.records import MANIFEST, is_prepared, read_manifest
from tools.dataset.check import Report, check_split, compare_splits, grouped, present_splits
from tools.dataset.coco import draw_labels
from tools.dataset.packing import damaged_files, pack
from train.command import PROBLEMS

SHOWN_PROBLEMS = 20


@command
def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] not in ("check", "pack", "coco", "-h", "--help"):
        argv = ["check", *argv]
    args = _parser().parse_args(argv)
    return args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="check|pack|coco")
    check = commands.add_parser("check", help="read every file and report faults")
    check.add_argument(
        "--subset", action="store_true", help="official counts and sizes don't matter"
    )
    check.set_defaults(run=_check)
    packing = commands.add_parser(
        "pack", help="write RecordIO that is several times faster to load"
    )
    packing.add_argument(
        "--jpeg", type=int, metavar="QUALITY", help="smaller; default: lossless PNG"
    )
    packing.set_defaults(run=_pack)
    for sub in (check, packing):
        sub.add_argument("--dataset", default="cityscapes", help="name or .yaml of the class table")
        sub.add_argument(
            "--split", action="append", help="repeatable (default: all that are there)"
        )
    coco = commands.add_parser("coco", help="write VOC labels from COCO's instances")
    coco.add_argument("--split", default="train2017")
    coco.set_defaults(run=_coco)
    for sub in (check, packing, coco):
        sub.add_argument("--data-root", type=Path, required=True, help="the data set's folder")
    for sub in (packing, coco):
        sub.add_argument("--out", type=Path, required=True, help="folder to write into")
    return parser


def _check(args: argparse.Namespace) -> int:
    if is_prepared(args.data_root):
        return _check_prepared(args.data_root)
    spec = load_dataset(args.dataset)
    reports = []
    for split in _splits(args, spec):
        with _progress(f"Reading {split}") as start:
            reports.append(check_split(spec, args.data_root, split, not args.subset, start))
    console = Console(markup=False, highlight=False)
    console.print(_overview(reports))
    console.print(_histogram(reports, spec))
    shared, alike = compare_splits(reports, spec.layout)
    problems = [problem for report in reports for problem in report.problems] + shared
    notes = [note for report in reports for note in report.notes] + alike
    for lines in (notes, grouped(problems)):
        for line in lines[:SHOWN_PROBLEMS]:
            print(line)
        if len(lines) > SHOWN_PROBLEMS:
            print(f"... and {len(lines) - SHOWN_PROBLEMS} more lines")
    if problems:
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)}")
    elif notes:
        lines = "line" if len(notes) == 1 else f"{len(notes)} lines"
        print(f"no file is wrong by itself; look at the {lines} above")
    else:
        print("nothing is wrong")
    return PROBLEMS if problems else 0


def _check_prepared(root: Path) -> int:
    damaged = []
    for file in sorted(root.glob(f"*{MANIFEST}")):
        split = file.name[: -len(MANIFEST)]
        manifest = read_manifest(root, split)
        found = damaged_files(root, manifest)
        frames = sum(len(shard["frames"]) for shard in manifest["shards"])
        shards = len(manifest["shards"])
        print(f"{split}: {frames} frames in {shards} shards, {len(found)} damaged files")
        damaged += found
    for name in damaged:
        print(f"{root / name}: damaged or missing; remove the split's files and pack it again")
    return PROBLEMS if damaged else 0


def _pack(args: argparse.Namespace) -> int:
    if args.jpeg is not None and not 1 <= args.jpeg <= 100:
        raise ConfigError(f"--jpeg {args.jpeg}: expected a quality of 1 to 100")
    if args.out.resolve() == args.data_root.resolve():
        raise ConfigError(f"--out {args.out}: is the data set's own folder; give another")
    spec = load_dataset(args.dataset)
    splits = args.split or [split for split in _splits(args, spec) if split != "test"]
    for split in "+".join(splits).split("+"):  # packed separately, to be joined in data.train_split
        samples = find_samples(spec.layout, args.data_root, split, spec.home)
        frames = FileFrames(samples, layout_of(spec.layout).read_label)
        with _progress(f"Packing {split}") as start:
            new = pack(samples, frames, args.out, split, args.jpeg, start(len(samples)))
        print(f"{args.out}: {split}: {len(samples)} frames, {new} of them packed now")
    return 0


def _coco(args: argparse.Namespace) -> int:
    with _progress(f"Drawing {args.split}") as start:
        drawn = draw_labels(args.data_root, args.split, load_dataset("voc"), args.out, start)
    for what, names, shown in (
        (
            "categories that VOC has not, drawn as background",
            drawn.categories,
            len(drawn.categories),
        ),
        ("images without a class of VOC", drawn.without, SHOWN),
    ):
        if names:
            print(f"left out, {what} ({len(names)}): {shortened(names, shown)}")
    print(f"{drawn.listed}: all that was left out")
    print(
        f"{args.out}: {drawn.images} images of {args.split} with VOC labels, in the layout "
        "'folders'"
    )
    return 0


def _splits(args: argparse.Namespace, spec: DatasetSpec) -> list[str]:
    home = spec.home or f"Expected in it: {layout_of(spec.layout).expected}"
    if not args.data_root.is_dir():
        raise DataError(f"{args.data_root}: no such data folder. {home}")
    splits = args.split or present_splits(spec, args.data_root)
    if not splits:
        raise DataError(f"{args.data_root}: found no images of {spec.name} in it. {home}")
    return splits


@contextmanager
def _progress(title: str) -> Iterator[Callable]:
    """Show a bar on a terminal; yields start(total) -> advance(count=1)."""
    console = Console(stderr=True, markup=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:

        def start(total: int) -> Callable[..., None]:
            task = bar.add_task(escape(title), total=total)
            return lambda count=1: bar.advance(task, count)

        yield start


def _overview(reports: list[Report]) -> Table:
    table = Table(
        "split", "images", "officially", "with label", "sizes (height x width)", "problems"
    )
    for report in reports:
        sizes = [f"{h}x{w}: {n}" for (h, w), n in report.sizes.most_common(4)]
        more = [f"{len(report.sizes) - 4} more"] if len(report.sizes) > 4 else []
        official = str(report.official[0]) if report.official else "-"
        table.add_row(
            report.split, str(report.images), official, str(report.labels),
            ", ".join(sizes + more), str(len(report.problems)),
        )  # fmt: skip
    return table


def _histogram(reports: list[Report], spec: DatasetSpec) -> Table:
    """Pixels of each label value, in percent, per split."""
    table = Table("value", "class", *(f"{report.split}, % of pixels" for report in reports))
    trained = spec.label_kind == "train_id"
    rows = spec.train_classes if trained else spec.classes
    names = {(row.train_id if trained else row.id): row.name for row in rows}
    for value in range(256):
        if value in names or any(report.counts[value] for report in reports):
            shares = (
                100 * report.counts[value] / max(report.counts.sum(), 1) for report in reports
            )
            table.add_row(
                str(value), names.get(value, "ignored" if spec.label_lut[value] >= 0 else "NONE"),
                *(f"{share:.3f}" for share in shares),
            )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
