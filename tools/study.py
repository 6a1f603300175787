r"""Run a comparison, rows x seeds, and tabulate it with error bars.

  python tools/study.py run configs/studies/cityscapes256_table1.yaml --data-root DIR --out OUT
  python tools/study.py run configs/studies/table1.yaml --data-root DIR --out OUT --dry-run
  python tools/study.py table configs/studies/cityscapes256_table1.yaml --out OUT

'run' trains each row with each seed and scores the parameters after the last epoch.
OUT/results.json gets one line per run. If the command is stopped or killed, the same command
continues, and no finished run is repeated. Several processes may share a folder. --num-parts and
--part-index share the runs between machines; join their results.json with cat. 'table' writes
table.md, .csv, .json and .png beside the results, and patch.png: the patch with most gridding, as
each row labels it (Figure 5). --dry-run trains each row for a few seconds to estimate time and
memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse
import time

from configs.errors import ConfigError
from tools.shared.options import add_parts, read_part
from tools.studies.plan import Study, read_study
from tools.studies.probe import dry_run
from tools.studies.results import drop_changed, read_results
from tools.studies.running import Place, StudyStopped, missing, run_unit, units
from tools.studies.table import write_table
from train.command import PROBLEMS
from train.errors import RunError
from train.stop import SAVED


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("action", choices=("run", "table"))
    add("study", type=Path, help="the study file (.yaml)")
    add("--out", type=Path, required=True, help="folder of the study's runs and results")
    add("--data-root", type=Path, help="run: the data set's folder")
    add_parts(parser, "runs")
    add("--gpus", help="GPU numbers of each training, as in 0,1 (default: all)")
    add("--dry-run", action="store_true", help="show what would run, its time and memory")
    add("--drop-changed", action="store_true", help="drop results of other versions of the study")
    return parser


def run(study: Study, place: Place, part: slice) -> int:
    """Run what has no result yet; return the exit code."""
    todo = [unit for unit in units(study)[part] if missing(study, place.out, unit)]
    print(f"{study.name}: {len(todo)} of {len(units(study)[part])} trainings to do", flush=True)
    start, failed = time.monotonic(), 0
    for number, unit in enumerate(todo, start=1):
        began = time.strftime("%H:%M")
        print(f"[{number}/{len(todo)}] {unit.network}, seed {unit.seed}: {began}", flush=True)
        try:
            said = run_unit(place, unit) or ["left to the process that runs it"]
        except StudyStopped:
            print("stopped; the same command continues", flush=True)
            return SAVED
        failed += sum(": failed: " in line for line in said)
        left = (time.monotonic() - start) / number * (len(todo) - number)
        print("\n".join(said) + f"; about {left / 60:.0f} minutes left", flush=True)
    return PROBLEMS if failed else 0


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    study = read_study(args.study)
    part = read_part(args)
    if args.action == "table":
        if not args.out.is_dir():
            raise RunError(f"{args.out}: no such folder")
        print(write_table(study, read_results(args.out, study), args.out), end="")
        return 0
    if args.data_root is None:
        raise ConfigError("run needs --data-root, the folder of the data set")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.drop_changed:
        print(f"{drop_changed(args.out, study)} results of other versions dropped")
    read_results(args.out, study)
    place = Place(study, args.data_root, args.out, args.gpus)
    if args.dry_run:
        dry_run(place, [u for u in units(study)[part] if missing(study, args.out, u)])
        return 0
    return run(study, place, part)


if __name__ == "__main__":
    sys.exit(main())
