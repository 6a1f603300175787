"""Measure speed: everything several times, and what is compared in turn within one run.

    python tools/benchmark.py data
    python tools/benchmark.py predict --json rows.json
    python tools/benchmark.py predict --sizes 544,1024x2048 --cases openvino_int8 --runs 5

Subjects: data, train, predict, evaluate, crf, memory. The command prints medians. A ratio is the
median of the ratios pair by pair, so that short disturbances of the machine do not change it. Rows
go to standard error as they are measured, and to a table at the end. Each subject takes at most
about five minutes on two cores. Every row of the JSON file names the processor and its
instructions.
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
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.errors import ConfigError
from tools.shared.options import parse_hw
from train.atomic import atomic_write
from train.machine import processor

WIDTH = 160  # characters, of a table that goes into a file
SUBJECTS = ("data", "train", "predict", "evaluate", "crf", "memory")


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of everything (default 3)")
    parser.add_argument(
        "--sizes",
        metavar="H[xW],...",
        help="data: crops, 544 or 880 (default 544); predict, crf: images (default 544; 512x1024)",
    )
    parser.add_argument("--cases", metavar="NAME,...", help="predict: only these backend_precision")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    options = _options(args)
    # Each subject loads large libraries, so only the chosen one is imported.
    rows = []
    for row in importlib.import_module(f"tools.bench.{args.subject}").rows(**options):
        rows.append({**row, "processor": processor()})
        print(f"{row['name']}: {row['value']:.4g} {row['unit']}", file=sys.stderr, flush=True)
    if args.json:  # before a reader of the output can leave
        with atomic_write(args.json) as file:
            file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    table = Table("name", "value", "unit", "ratio", "to", "runs", title=processor())
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
        table.add_row(
            row["name"], f"{row['value']:.4g}", row["unit"], ratio, row["ratio_to"] or "",
            str(row["runs"]),
        )  # fmt: skip
    console.print(table)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the subject's own options."""
    options: dict[str, Any] = {"runs": args.runs}
    for option, subjects in (("sizes", ("data", "predict", "crf")), ("cases", ("predict",))):
        if getattr(args, option) and args.subject not in subjects:
            known = ", ".join(subjects)
            raise ConfigError(f"--{option} is an option of {known}, not of {args.subject}")
    if args.sizes:
        sides = [text.split("x") for text in args.sizes.split(",")]
        options["sizes"] = [parse_hw("--sizes", f"{pair[0]},{pair[-1]}") for pair in sides]
    if args.cases:
        options["cases"] = args.cases.split(",")
    return options


if __name__ == "__main__":
    sys.exit(main())
