"""JSON files that hold the SHA-256 of their content, so that damage is detected."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def seal(content: Any, indent: int | None = None) -> str:
    """Write ``content`` as JSON together with its digest."""
    return json.dumps({"sha256": _digest(content), "content": content}, indent=indent) + "\n"


def unseal(text: str) -> Any:
    """Return the content of a text that :func:`seal` wrote.

    Raises
    ------
    ValueError
        It is not such a text, or its content has changed.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict) or document.keys() != {"sha256", "content"}:
        raise ValueError("expected an object with 'sha256' and 'content'")
    if document["sha256"] != _digest(document["content"]):
        raise ValueError("its SHA-256 is not that of its content")
    return document["content"]


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
