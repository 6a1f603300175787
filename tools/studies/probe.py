"""Estimate a study's time and memory: each row is trained for a few seconds."""

from __future__ import annotations

import math
import resource
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.datasets import load_dataset
from configs.schema import Config
from data_iter.datasets import find_samples
from data_iter.image_files import read_size
from data_iter.patches import plan
from tools.studies.running import Place, RunFailed, StudyStopped, Unit, train
from train.run_dir import RunDir

SECONDS = 30  # length of each row's trial, with loading


def dry_run(place: Place, todo: Sequence[Unit]) -> None:
    """Print each row's trainings to do, their updates and time, and the peak memory so far."""
    table = Table("row", "seeds", "updates", "hours each", "peak memory so far, GB")
    total = 0.0
    for network in dict.fromkeys(unit.network for unit in todo):
        seeds = [unit.seed for unit in todo if unit.network == network]
        config = place.study.row(network).config
        updates = count_updates(config, place.data_root)
        speed = _samples_per_second(place, Unit(network, seeds[0], ()))
        hours = updates * config.solver.batch_size / speed / 3600 if speed else math.nan
        total += hours * len(seeds)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        cells = (network, ", ".join(map(str, seeds)), f"{updates:,}", f"{hours:.2f}")
        table.add_row(*cells, f"{memory:.1f}")
    console = Console(markup=False)
    console.print(table)
    console.print(f"{len(todo)} trainings, about {total:.1f} hours, scoring not counted")


def count_updates(config: Config, data_root: Path) -> int:
    """Count a training's iterations: patches of all frames / batch size x epochs."""
    data, dataset = config.data, load_dataset(config.data.dataset)
    frames = find_samples(dataset.layout, data_root, data.train_split, dataset.home)
    recipe = (data.patch_hw, data.patch_stride, data.patch_jitter)
    sizes = Counter(read_size(frame.image) for frame in frames)  # each one's plan is made once
    patches = sum(count * len(plan(data.patches, hw, *recipe)) for hw, count in sizes.items())
    return patches // config.solver.batch_size * config.solver.epochs


def _samples_per_second(place: Place, unit: Unit) -> float | None:
    """Train for a few seconds in a temporary folder; None if not one update finishes."""
    place.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.out, prefix=".dry-run-") as folder:
        run = Path(folder) / "run"
        options = ("--time-limit", str(SECONDS), "--set=solver.log_every=1")
        with suppress(StudyStopped, RunFailed):
            train(place, unit, *options, folder=run)
        if not (run / "log.jsonl").is_file():
            return None
        speeds = [r["samples_per_second"] for r in RunDir(run).log.read() if "lr" in r]
        return sorted(speeds)[len(speeds) // 2] if speeds else None
