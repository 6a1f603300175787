"""The study file: rows that differ in named settings, each trained from the same seeds.

``question``  what the study asks
``base``      the ``.cfg`` of rows without their own, relative to the study file
``metric``    ``mean_iou``, or ``max_f`` for KITTI road
``split``     the frames that are scored
``seeds``     whole numbers
``watch``     classes whose IoU the table shows
``set``       settings over the base, for every row
``rows``      ``name``, ``title``, ``base``, ``set`` (over the study's), ``paper`` (its
              figure, %), ``compare`` (a row's name), ``network`` (score that row's
              network), ``crf``
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.datasets import load_dataset
from configs.errors import ConfigError
from configs.loader import differences, load_config
from configs.schema import Config
from configs.text_files import read_yaml

METRICS = {"mean_iou": "mIoU", "max_f": "MaxF"}  # and what the tables call them
TYPES = {
    "question": str, "base": str, "metric": str, "split": str, "seeds": list, "watch": list,
    "rows": list, "name": str, "title": str, "set": dict, "paper": (int, float), "compare": str,
    "network": str, "crf": bool,
}  # fmt: skip
OF_STUDY = ("question", "base", "metric", "split", "seeds", "watch", "set", "rows")
OF_ROW = ("name", "title", "base", "set", "paper", "compare", "network", "crf")


@dataclass(frozen=True)
class Row:
    """One row of the table; ``network`` names the row whose trained network is scored."""

    name: str
    title: str
    base: Path
    settings: tuple[str, ...]
    config: Config
    paper: float | None
    compare: str | None
    network: str
    crf: bool

    @property
    def signature(self) -> str:
        """Digest of all that decides the row's scores: settings off their default, and the CRF.

        A key that is later added to the schema keeps its default and leaves the digest unchanged.
        """
        settings = differences(Config(), self.config)
        kept = sorted(line for line in settings if not line.startswith("experiment.seed"))
        text = "\n".join([*kept, f"crf={self.crf}"])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    path: Path
    question: str
    metric: str
    split: str
    seeds: tuple[int, ...]
    watch: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def row(self, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)


def read_study(path: Path) -> Study:
    """Read a study file; ``ConfigError`` names file, row and field that are wrong."""
    found = _fields(path, read_yaml(path), OF_STUDY, ("rows", "seeds"))
    seeds, metric = found["seeds"], found.get("metric", "mean_iou")
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds: expected whole numbers from 0 on, found {seeds}")
    for number, seed in enumerate(seeds):
        if seed in seeds[:number]:
            raise ConfigError(f"{path}: seeds: {seed} is given twice")
    if metric not in METRICS:
        raise ConfigError(f"{path}: metric {metric}: expected one of {', '.join(METRICS)}")
    rows: list[Row] = []
    for number, document in enumerate(found["rows"], start=1):
        row = _row(path, f"{path}: row {number}", document, found, rows)
        if row.name in [other.name for other in rows]:
            raise ConfigError(f"{path}: row {number}: another row is named '{row.name}' too")
        rows.append(row)
    if not rows:
        raise ConfigError(f"{path}: rows: expected at least one")
    names = [row.name for row in rows]
    for row in rows:
        if row.compare is not None and (row.compare not in names or row.compare == row.name):
            raise ConfigError(
                f"{path}: row '{row.name}': compare '{row.compare}': expected another row's name"
            )
    tables = {name: load_dataset(name) for name in {row.config.data.dataset for row in rows}}
    for row in rows:
        dataset = tables[row.config.data.dataset]
        if (metric == "max_f") != (dataset.layout == "kitti"):
            raise ConfigError(
                f"{path}: metric {metric}: expected max_f for KITTI road and mean_iou for others; "
                f"row '{row.name}' has {dataset.name}"
            )
        for name in found.get("watch", []):
            if name not in [spec.name for spec in dataset.train_classes]:
                raise ConfigError(f"{path}: watch: {dataset.name} has no class '{name}'")
    return Study(
        path, found.get("question", ""), metric, found.get("split", "val"), tuple(seeds),
        tuple(map(str, found.get("watch", []))), tuple(rows),
    )  # fmt: skip


def _row(path: Path, where: str, document: Any, study: dict[str, Any], earlier: list[Row]) -> Row:
    found = _fields(where, document, OF_ROW, ("name",))
    name = found["name"]
    shared = {key: found.get(key) for key in ("paper", "compare")}
    crf, title = found.get("crf", False), found.get("title", name)
    if not name.replace("_", "").isalnum():
        raise ConfigError(f"{where}: name '{name}': expected letters, digits and _")
    if "network" in found:
        if "set" in found or "base" in found:
            raise ConfigError(f"{where}: '{name}' has a network of another row: no base, no set")
        trained = [row for row in earlier if row.name == found["network"] == row.network]
        if not trained:
            raise ConfigError(
                f"{where}: network '{found['network']}': expected a row above that is trained"
            )
        source = trained[0]
        return Row(
            name, title, source.base, source.settings, source.config,
            network=source.name, crf=crf, **shared,
        )  # fmt: skip
    base = found.get("base", study.get("base"))
    if base is None:
        raise ConfigError(f"{where}: '{name}' has no base, and the study names none")
    overrides = study.get("set", {}) | found.get("set", {})
    settings = tuple(f"{key}={_text(value)}" for key, value in overrides.items())
    if any(setting.startswith("experiment.seed=") for setting in settings):
        raise ConfigError(f"{where}: experiment.seed: expected under 'seeds' of the study")
    try:
        config = load_config(path.parent / base, settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).replace('--set', 'set')}") from None
    return Row(name, title, path.parent / base, settings, config, network=name, crf=crf, **shared)


def _fields(where: Any, found: Any, known: tuple[str, ...], needed: tuple[str, ...]) -> dict:
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: expected the keys {', '.join(known)}")
    for key, value in found.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'; expected {', '.join(known)}")
        if not isinstance(value, TYPES[key]):
            raise ConfigError(f"{where}: {key}: found {value!r}, of another type than expected")
    for key in needed:
        if key not in found:
            raise ConfigError(f"{where}: the key '{key}' is missing")
    return found


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
