"""Read text files that users write, configurations and YAML, guarded against hostile content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

MOST_BYTES = 1 << 20  # the largest file of this project has 3 kB
MOST_DEPTH = 20  # levels of nested lists and mappings in a YAML file


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises
    ------
    ConfigError
        It is missing, not a regular file (a pipe would block for ever), larger than a megabyte, or
        not text. The message never quotes the content, which may belong to someone else.
    """
    if "\0" in str(path) or not path.is_file():
        what = "expected a file" if "\0" not in str(path) and path.exists() else "no such file"
        raise ConfigError(f"{path}: cannot be read ({what})".replace("\0", "\\0"))
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ConfigError(f"{path}: {size} bytes, expected at most {MOST_BYTES}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        raise ConfigError(f"{path}: line {line}: not text: it holds a NUL")
    return text


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain lists, mappings and scalars.

    Raises
    ------
    ConfigError
        As :func:`read_text`; it is not YAML; it has aliases (a few of them can stand for more than
        memory holds) or tags (``!!int``), or is nested deeper than :data:`MOST_DEPTH`.
    """
    text = read_text(path)
    try:
        _check_bounded(path, text)
        return yaml.safe_load(text)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        line = getattr(error.problem_mark, "line", None)
        where = f" on line {line + 1}" if line is not None else ""
        raise ConfigError(f"{path}: not a YAML file ({error.problem}{where})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    except (ValueError, OverflowError) as error:  # a date such as 2001-99-99, "\Uffffffff"
        raise ConfigError(f"{path}: a value that cannot be read ({error})") from None


def _check_bounded(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = getattr(event.start_mark, "line", 0) + 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}: line {line}: aliases (*{event.anchor}) are not read")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{path}: line {line}: tags ({tag[:80]!r}) are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(f"{path}: line {line}: nested deeper than {MOST_DEPTH} levels")
