"""The class table of a data set: a YAML file with one row per class, as a :class:`DatasetSpec`.

Only the names are needed::

    name: mine
    classes: [road, car, sky]

A row without ``id`` gets the next one. A row without ``train_id`` is the next class that the
network learns (or is ignored, if its id is given as ``ignore_id``). No row counts up to
``ignore_id``: its class would be lost. Missing colours are chosen.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import yaml

from ..errors import ConfigError, did_you_mean
from ..text_files import read_yaml
from .colours import choose

FOLDER = Path(__file__).resolve().parent
LABEL_KINDS = ("label_id", "train_id")


@dataclass(frozen=True)
class ClassSpec:
    """One row of a class table.

    Attributes
    ----------
    name : str
        As the data set writes it.
    id : int
        The official value in label files and submissions, 0..255.
    train_id : int
        The class that the network learns, 0, 1, ... without a gap, or the table's ``ignore_id``.
        Several rows may share one; predictions then turn into the first row's ``id``.
    color : tuple of int
        RGB, 0..255, for pictures of the labels.
    category : str
        Group of classes that is scored together (Cityscapes); empty for data sets without groups.
    has_instances : bool
        Whether the data set distinguishes single instances (Cityscapes, for iIoU).
    """

    name: str
    id: int
    train_id: int
    color: tuple[int, int, int]
    category: str = ""
    has_instances: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """A class table; immutable.

    Attributes
    ----------
    name : str
        Name of the data set.
    classes : tuple of ClassSpec
        The rows, in the file's order.
    layout : str
        How its folders are laid out: a key of ``data_iter.datasets.LAYOUTS``.
    ignore_id : int
        Train id that loss and score ignore. The same value is ignored in label files, whether or
        not a row has it.
    label_kind : str
        Column whose values label files hold: ``label_id`` (``id``) or ``train_id``.
    home : str
        Where to get the data and how to lay it out.
    """

    name: str
    classes: tuple[ClassSpec, ...]
    layout: str = "folders"
    ignore_id: int = 255
    label_kind: str = "label_id"
    home: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes that the network learns."""
        return len(self.train_classes)

    @cached_property
    def train_classes(self) -> tuple[ClassSpec, ...]:
        """For each train id, from 0, the first row that has it."""
        first: dict[int, ClassSpec] = {}
        for row in self.classes:
            first.setdefault(row.train_id, row)
        first.pop(self.ignore_id, None)
        return tuple(first[train_id] for train_id in sorted(first))

    @property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB colour of each train id; black for values that are not a class."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = [row.color for row in self.train_classes]
        return palette

    @property
    def label_lut(self) -> np.ndarray:
        """(256,) int16 train id of each value in a label file, -1 where the table has none.

        Cityscapes' label files never contain its ignore_id, 255. A file with 255 holds train ids.
        """
        lut = np.full(256, -1, np.int16)
        if self.layout != "cityscapes":
            lut[self.ignore_id] = self.ignore_id
        if self.label_kind == "train_id":
            lut[: self.num_classes] = np.arange(self.num_classes)
            lut[self.ignore_id] = self.ignore_id
        else:
            for row in self.classes:
                lut[row.id] = row.train_id
        return lut

    @property
    def train_to_label(self) -> np.ndarray:
        """(256,) uint8 official value of each train id; the ignored value for all other ids."""
        ignored = [row.id for row in self.classes if row.train_id == self.ignore_id]
        lut = np.full(256, ignored[0] if ignored else self.ignore_id, np.uint8)
        lut[: self.num_classes] = [row.id for row in self.train_classes]
        return lut

    def dump(self) -> str:
        """Write the table as YAML that :func:`load_dataset` reads back as an equal one."""
        head = {name: getattr(self, name) for name in _types(DatasetSpec) if name != "classes"}
        rows = [
            yaml.safe_dump(
                dataclasses.asdict(row) | {"color": list(row.color)},
                default_flow_style=True,
                sort_keys=False,
                width=1000,
            )
            for row in self.classes
        ]
        return (
            yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
            + "classes:\n"
            + "".join(f"  - {row}" for row in rows)
        )


def load_dataset(name_or_path: str | Path) -> DatasetSpec:
    """Load a class table.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a file of this folder (``cityscapes``), or the path of a ``.yaml`` file.

    Raises
    ------
    ConfigError
        The name is unknown (the message gives the nearest one), or the table is wrong (the message
        names file and field).
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        if str(name_or_path) not in known:
            hint = did_you_mean(str(name_or_path), known)
            raise ConfigError(
                f"data set '{name_or_path}': expected one of {', '.join(known)}, "
                f"or the path of a .yaml file{hint}"
            )
        path = FOLDER / f"{name_or_path}.yaml"
    document = read_yaml(path)
    try:
        spec = _table(document)
        _check(spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return spec


def _table(document: Any) -> DatasetSpec:
    fields = _fields(DatasetSpec, document, "")
    ignore_id = fields.get("ignore_id", DatasetSpec.ignore_id)
    rows = [_row(row, f"classes, row {n}: ") for n, row in enumerate(fields["classes"], start=1)]
    given = [tuple(row["color"]) for row in rows if "color" in row]
    colors = iter(choose(len(rows) - len(given), given))
    next_id = next_train_id = 0
    for number, row in enumerate(rows, start=1):
        ignored = row.get("id") == ignore_id
        for key, counted in (("id", next_id), ("train_id", next_train_id)):
            if key not in row and counted == ignore_id and not ignored:
                raise ConfigError(
                    f"classes, row {number}: it has no {key} and counts up to {counted}, which is "
                    f"ignore_id; give it the {key} {counted} to ignore it, or the table another "
                    "ignore_id"
                )
        row["id"] = row.get("id", next_id)
        row["train_id"] = row.get("train_id", ignore_id if ignored else next_train_id)
        row["color"] = tuple(row["color"]) if "color" in row else next(colors)
        next_id = row["id"] + 1
        if row["train_id"] != ignore_id:
            next_train_id = max(next_train_id, row["train_id"] + 1)
    return DatasetSpec(**fields | {"classes": tuple(ClassSpec(**row) for row in rows)})


def _row(row: Any, where: str) -> dict[str, Any]:
    """Read one row, a name or a mapping, without the values that depend on other rows."""
    if isinstance(row, str):
        return {"name": row}
    row = dict(_fields(ClassSpec, row, where, optional=("id", "train_id", "color")))
    for name in ("id", "train_id"):
        if not 0 <= row.get(name, 0) <= 255:
            raise ConfigError(f"{where}{name}: expected 0..255, found {row[name]}")
    color = row.get("color", [0, 0, 0])
    if len(color) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in color):
        raise ConfigError(
            f"{where}color: expected [red, green, blue] of 0..255, found {short(color)}"
        )
    return row


def _types(cls: type) -> dict[str, type]:
    """Python type of each field as YAML reads it."""
    scalar = {"str": str, "int": int, "bool": bool}
    return {field.name: scalar.get(str(field.type), list) for field in dataclasses.fields(cls)}


def _fields(cls: type, found: Any, where: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check a YAML mapping against the fields of a dataclass."""
    types = _types(cls)
    if not isinstance(found, dict):
        raise ConfigError(f"{where}expected the fields {', '.join(types)}, found {short(found)}")
    for name, value in found.items():
        if name not in types:
            hint = did_you_mean(str(name), types)
            raise ConfigError(f"{where}unknown field '{name}'{hint}")
        if type(value) is not types[name]:
            raise ConfigError(
                f"{where}{name}: expected {types[name].__name__}, found {short(value)}"
            )
    for field in dataclasses.fields(cls):
        needed = field.default is dataclasses.MISSING and field.name not in optional
        if needed and field.name not in found:
            raise ConfigError(f"{where}field '{field.name}' is missing")
    return found


def _check(spec: DatasetSpec) -> None:
    """Check the fields of a table against each other."""
    if spec.label_kind not in LABEL_KINDS:
        raise ConfigError(
            f"label_kind: expected one of {', '.join(LABEL_KINDS)}, found '{spec.label_kind}'"
        )
    if not re.fullmatch(r"[^\s/\\]+", spec.name):
        raise ConfigError(f"name: expected a word, found {short(spec.name)}")
    if not 0 <= spec.ignore_id <= 255:
        raise ConfigError(f"ignore_id: expected 0..255, found {spec.ignore_id}")
    for column in ("name", "id"):
        seen: dict[Any, int] = {}
        for number, row in enumerate(spec.classes, start=1):
            value = getattr(row, column)
            if value in seen:
                raise ConfigError(
                    f"classes, row {number}: {column} {value} is already in row {seen[value]}"
                )
            seen[value] = number
    for number, row in enumerate(spec.classes, start=1):
        if not row.name.strip() or not row.name.isprintable():
            raise ConfigError(
                f"classes, row {number}: name: expected a word or more, found {row.name!r}"
            )
        if not 0 <= row.id <= 255:
            raise ConfigError(f"classes, row {number}: id: counts up to {row.id}, expected 0..255")
        if row.id == spec.ignore_id != row.train_id:
            raise ConfigError(
                f"classes, row {number}: id {row.id} is ignore_id, so its train_id has to be too; "
                "or give the table another ignore_id"
            )
    learnt = {row.train_id for row in spec.classes} - {spec.ignore_id}
    if not learnt:
        raise ConfigError("classes: no row has a train_id other than ignore_id")
    missing = set(range(max(learnt) + 1)) - learnt
    if missing:
        raise ConfigError(
            f"classes: train ids must run from 0 without a gap; no row has {min(missing)}"
        )
