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


def at_least_one(option: str, value: int | None) -> None:
    """Raise ``ConfigError`` if an option was given and is below 1."""
    if value is not None and value < 1:
        raise ConfigError(f"{option} {value}: expected at least 1")


def add_parts(parser: argparse.ArgumentParser, work: str) -> None:
    """Add ``--num-parts`` and ``--part-index``: machines that share the ``work``."""
    parser.add_argument(
        "--num-parts", type=int, default=1, help=f"number of machines that share the {work}"
    )
    parser.add_argument("--part-index", type=int, default=0, help="number of this machine, from 0")


def read_part(args: argparse.Namespace) -> slice:
    """Return what this machine takes of a list; see :func:`add_parts`."""
    at_least_one("--num-parts", args.num_parts)
    if not 0 <= args.part_index < args.num_parts:
        raise ConfigError(
            f"--part-index {args.part_index}: expected 0 to {args.num_parts - 1} for "
            f"--num-parts {args.num_parts}"
        )
    return slice(args.part_index, None, args.num_parts)


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
