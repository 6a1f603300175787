"""One key of a configuration: how it is declared, read from text, and checked against bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

FLOAT32_MAX = 3.4e38  # MXNet computes in float32


def key(
    default: Any,
    doc: str,
    *,
    choices: tuple = (),
    at_least: float = -math.inf,
    at_most: float = math.inf,
    length: int | None = None,
    word: str = "",
) -> Any:
    """Declare one key: default, one-line meaning, and the values that it accepts.

    ``word`` is accepted in place of a value; the code that uses the key interprets it.

    ``at_most`` only excludes values that no machine can hold, so that a typing error is reported.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "length": length, "word": word}
    metadata = {"doc": doc, "choices": choices, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


def parse(annotation: str, text: str) -> Any:
    """Read ``text`` as a key's type (``int float bool str`` or ``tuple[T, ...]``).

    Raises ``ValueError`` with what was expected.
    """
    if annotation.startswith("tuple["):
        element = annotation[len("tuple[") :].split(",")[0]
        return tuple(parse(element, part.strip()) for part in text.split(",") if part.strip())
    if annotation == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if annotation == "str":
        return text
    try:
        value = int(text) if annotation == "int" else float(text)
        if not abs(value) <= FLOAT32_MAX:
            raise ValueError
        return value
    except ValueError:
        raise ValueError("a whole number" if annotation == "int" else "a number") from None


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Check one value against its key's bounds; ``ValueError`` says what was expected."""
    choices = field.metadata["choices"]
    low, high = field.metadata["at_least"], field.metadata["at_most"]
    if choices and value not in choices:
        raise ValueError(f"one of {', '.join(map(str, choices))}")
    if not isinstance(value, str):
        values = value if isinstance(value, tuple) else (value,)
        if not all(v >= low for v in values if not isinstance(v, str)):
            raise ValueError(f"at least {low}")
        if not all(v <= high for v in values if not isinstance(v, str)):
            raise ValueError(f"at most {high}")
    length = field.metadata["length"]
    if length and len(value) != length:
        raise ValueError(f"{length} numbers separated by commas")
