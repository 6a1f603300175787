"""Options that several commands have: one meaning, one syntax, one message."""

from __future__ import annotations

import argparse
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import LONGEST_SIDE
from configs.values import parse
from train.machine import PROJECT

EMBEDDED = PROJECT / "models" / "camvid"  # the run folder of the embedded network


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--epoch``: the network, and the epoch of its parameters."""
    parser.add_argument(
        "--model", type=Path, default=EMBEDDED, help="run folder (default: models/camvid)"
    )
    add_epoch(parser)


def add_epoch(parser: argparse.ArgumentParser) -> None:
    """Add ``--epoch``."""
    parser.add_argument(
        "--epoch", default="last", metavar="best|last|N", help="of the parameters (default: last)"
    )


def read_epoch(text: str) -> int | str:
    """Read the value of ``--epoch``: ``best``, ``last`` or a number."""
    if text not in ("best", "last") and not text.isdecimal():
        raise ConfigError(f"--epoch {text}: expected best, last or a number")
    return int(text) if text.isdecimal() else text


def numbers(option: str, text: str, kind: str) -> tuple:
    """Read ``1,2`` as a tuple of ``kind``, int or float; ``ConfigError`` names the option."""
    try:
        return parse(f"tuple[{kind}, ...]", text)
    except ValueError:
        what = "whole numbers" if kind == "int" else "numbers"
        raise ConfigError(f"{option} {text}: expected {what} separated by commas") from None


def parse_hw(option: str, text: str | None) -> tuple[int, int] | None:
    """Read ``HEIGHT,WIDTH``; None where the option is not given."""
    if text is None:
        return None
    try:
        height, width = parse("tuple[int, ...]", text)
    except ValueError:
        raise ConfigError(f"{option} {text}: expected HEIGHT,WIDTH") from None
    if not all(1 <= side <= LONGEST_SIDE for side in (height, width)):
        raise ConfigError(f"{option} {text}: expected HEIGHT,WIDTH, 1 to {LONGEST_SIDE} each")
    return height, width
