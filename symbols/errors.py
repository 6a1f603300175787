"""The user error of this package, and how a name is looked up in a table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

Entry = TypeVar("Entry")


class NetworkError(ValueError):
    """A network that cannot be built from the arguments given.

    Parameters
    ----------
    key : str
        The argument of :func:`symbols.get_symbol` that cannot be used.
    found : object
        Its value.
    expected : str
        What it has to be.
    """

    def __init__(self, key: str, found: object, expected: str):
        super().__init__(f"{key} {found!r}: expected {expected}")
        self.key, self.expected = key, expected


def look_up(key: str, name: Any, table: Mapping[Any, Entry]) -> Entry:
    """Return the entry of a table that the argument ``key`` names.

    Raises ``NetworkError`` with the table's names, and the nearest one.
    """
    if name not in table:
        raise NetworkError(key, name, one_of(name, table))
    return table[name]


def one_of(name: Any, table: Mapping[Any, Any]) -> str:
    """Say what a table has in place of a name that it lacks."""
    nearest = difflib.get_close_matches(str(name), map(str, table), n=1)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    return f"one of {', '.join(map(str, table))}{hint}"
