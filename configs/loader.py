"""Read a ``.cfg`` file, its base and overrides into a checked :class:`configs.schema.Config`.

The syntax is INI without interpolation; keys keep their case; ``#`` begins a comment.
``[experiment] base`` names a file, relative to the one that contains it. This file overrides the
values of its base.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigError, did_you_mean
from .schema import SECTIONS, Config, Solver, check_together
from .text_files import read_text
from .values import check_value, parse

LEARN_BN = ("solver", "learn_bn_epochs")
UNWRITABLE = re.compile(r"(^|\s)#|[\r\n]")  # what `dump` could not write so that it is read back


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Load ``path`` over its bases, then apply ``section.key=value`` overrides in order.

    Raises ``ConfigError`` that names file, section, key, what was found and what was expected.
    """
    values: dict[tuple[str, str], object] = {}
    sources: dict[str, str] = {}
    for file in _chain(Path(path)):
        for section, entries in _read(file).items():
            for name, text in entries.items():
                if (section, name) != ("experiment", "base"):
                    values[section, name] = _value(str(file), section, name, text)
                    sources[f"{section}.{name}"] = str(file)
    for override in overrides:
        target, equals, text = override.partition("=")
        section, dot, name = target.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(f"--set {override}: expected section.key=value")
        values[section, name] = _value("--set", section, name, text.strip())
        sources[f"{section}.{name}"] = "--set"
    if values.get(LEARN_BN) == "all":
        values[LEARN_BN] = values.get(("solver", "epochs"), Solver.epochs)
    config = Config(
        **{
            section: cls(**{name: v for (s, name), v in values.items() if s == section})
            for section, cls in SECTIONS.items()
        },
        sources=sources,
    )
    try:
        check_together(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def dump(config: Config) -> str:
    """Write ``config`` as a complete ``.cfg`` text with each key's meaning beside it."""
    lines = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        for field in dataclasses.fields(getattr(config, section)):
            setting = f"{field.name} = {_text(getattr(getattr(config, section), field.name))}"
            lines.append(f"{setting:<40} # {field.metadata['doc']}")
        lines.append("")
    return "\n".join(lines)


def differences(old: Config, new: Config) -> list[str]:
    """List the keys whose values differ, as ``section.key: old -> new``."""
    return [
        f"{section}.{field.name}: {_text(before)} -> {_text(after)}"
        for section in SECTIONS
        for field in dataclasses.fields(getattr(old, section))
        for before in [getattr(getattr(old, section), field.name)]
        for after in [getattr(getattr(new, section), field.name)]
        if before != after
    ]


def _chain(path: Path) -> list[Path]:
    """Return ``path`` and its bases, the outermost base first."""
    chain: list[Path] = []
    while True:
        if path.resolve() in [p.resolve() for p in chain]:
            raise ConfigError(f"{path}: [experiment] base leads back to the file itself")
        chain.insert(0, path)
        base = _read(path).get("experiment", {}).get("base")
        if base is None:
            return chain
        path = path.parent / base


def _read(path: Path) -> dict[str, dict[str, str]]:
    text = read_text(path)
    parser = configparser.ConfigParser(
        interpolation=None, default_section="", inline_comment_prefixes=("#",)
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # keep the case of keys
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        raise ConfigError(f"{path}: {_syntax(error)}") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _syntax(error: configparser.Error) -> str:
    """Name the error and the line's number, but not its text: a base may be any file."""
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] already exists"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} already exists"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: no section headers before it; is this a .cfg?"
    lines = [number for number, _ in getattr(error, "errors", [])]
    return f"line {lines[0] if lines else '?'}: expected key = value"


def _value(source: str, section: str, name: str, text: str) -> object:
    if section not in SECTIONS:
        raise ConfigError(f"{source}: unknown section [{section}]{did_you_mean(section, SECTIONS)}")
    fields = {field.name: field for field in dataclasses.fields(SECTIONS[section])}
    if name not in fields:
        raise ConfigError(f"{source}: [{section}] unknown key '{name}'{did_you_mean(name, fields)}")
    kind = str(fields[name].type)
    try:
        if text and text == fields[name].metadata["word"]:
            return (text,) if kind.startswith("tuple") else text
        if "str" in kind and UNWRITABLE.search(text):
            raise ValueError("one line without ' #', which begins a comment in a .cfg")
        value = parse(kind, text)
        check_value(fields[name], value)
    except ValueError as error:
        found = " ".join(text.split())
        raise ConfigError(f"{source}: [{section}] {name} = {found}: expected {error}") from None
    return value


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
