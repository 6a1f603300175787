"""Measure speed: each thing several times, things that are compared in turn in the same run.

    python tools/benchmark.py data
    python tools/benchmark.py predict --json rows.json

Subjects: data, train, predict, evaluate, crf. Printed are medians; a ratio is the median of the
ratios pair by pair, so that a machine that is busy now and then does not tilt it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
import importlib
import json

from rich.console import Console
from rich.table import Table

from train.atomic import atomic_write

WIDTH = 160  # of a table that goes into a file
SUBJECTS = ("data", "train", "predict", "evaluate", "crf")


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--runs", type=int, default=5, help="of everything (default 5)")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    # Each subject brings large libraries of its own, so only the one asked for is imported.
    rows = importlib.import_module(f"tools.bench.{args.subject}").rows(runs=args.runs)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    table = Table("name", "value", "unit", "ratio", "to", "runs")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
        table.add_row(
            row["name"], f"{row['value']:.4g}", row["unit"], ratio, row["ratio_to"] or "",
            str(row["runs"]),
        )  # fmt: skip
    console.print(table)
    if args.json:
        with atomic_write(args.json) as file:
            file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
