"""The log of a run: ``log.jsonl``, a JSON object per line, and where the lines for people go."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import RunError

LOG = "log.jsonl"


class RunLog:
    """The file ``log.jsonl`` of a run folder; it may be missing."""

    def __init__(self, folder: Path):
        self.path = folder / LOG

    def append(self, **record: Any) -> None:
        """Write one more line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Read all of :meth:`records`; ``RunError`` where there is none."""
        records = list(self.records())
        if not records:
            raise RunError(f"{self.path}: it is empty; nothing was logged yet")
        return records

    def records(self) -> Iterator[dict[str, Any]]:
        """Read line by line; a validation gets the iteration of the training record before it."""
        if not self.path.is_file():
            raise RunError(f"{self.path.parent}: not a run folder: it has no {LOG}")
        iteration = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = json.loads(line.decode())
                    iteration = record.setdefault("iteration", iteration)
                except (ValueError, AttributeError, RecursionError):
                    raise RunError(f"{self.path}: line {number}: expected a JSON object") from None
                yield record

    def last_validation(self) -> dict[str, Any] | None:
        """Return the newest record of a validation; None before the first one."""
        last = None
        for record in self.records() if self.length else ():
            last = record if "val_iou" in record else last
        return last

    @property
    def length(self) -> int:
        """The file's bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def cut(self, length: int) -> None:
        """Keep the first ``length`` bytes: a resumed run repeats the iterations after them."""
        if self.length > length:
            with self.path.open("r+b") as file:
                file.truncate(length)


def log_to(*files: logging.Handler) -> None:
    """Log to the screen, and to nothing else but ``files``."""
    # A terminal shows the progress bar, and of the lines only warnings.
    screen = logging.StreamHandler()
    if sys.stderr.isatty():
        screen.setLevel(logging.WARNING)
    handlers = [*files, screen]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers, force=True
    )
