"""The user error of this package; it imports nothing of the project."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration or an option that cannot be used."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` with the nearest known name; empty where none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""
