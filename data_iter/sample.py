"""What a folder layout finds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """One image, its label file (None where a split has none) and its name without suffixes."""

    image: Path
    label: Path | None
    name: str
