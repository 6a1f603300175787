"""MXNet's ``.params`` files: written whole; a damaged one is refused with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from .atomic import atomic_write, check_room, digest
from .errors import RunError, reason

Params = dict[str, mx.nd.NDArray]


def read_arrays(path: Path) -> Params:
    """Read a file of named arrays; ``RunError`` names the fault."""
    if not path.is_file():
        raise RunError(f"{path}: no such parameter file")
    try:
        path.open("rb").close()  # MXNet's message about an unreadable file is not useful
        named = mx.nd.load(str(path))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except mx.base.MXNetError as error:
        raise RunError(f"{path}: not a whole MXNet parameter file ({reason(error)})") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: damaged: the name of an array is not text") from None
    if isinstance(named, dict):
        return named
    if named:
        raise RunError(f"{path}: its arrays have no names")
    return {}  # a file without arrays is read as a list


def save_arrays(path: Path, arrays: Params) -> dict[str, Any]:
    """Write named arrays and read them back, since MXNet may cut a file short without an error.

    Returns
    -------
    dict
        ``bytes`` and ``sha256`` of the file.

    Raises
    ------
    RunError
        It could not be written whole; an earlier file stays.
    """
    check_room(path, array_bytes(arrays), "what was saved before is unharmed; this takes")
    with atomic_write(path) as temporary:
        try:
            mx.nd.save(str(temporary), arrays)
            whole = set(mx.nd.load(str(temporary))) == set(arrays) if arrays else True
        except mx.base.MXNetError:
            whole = False
        if not whole:
            raise RunError(
                f"{path}: could not be written whole (is the disk full?); "
                "the checkpoints before it are unharmed"
            )
        return {"bytes": temporary.stat().st_size, "sha256": digest(temporary)}


def array_bytes(arrays: Params) -> int:
    """Count the bytes of arrays."""
    return sum(array.size * np.dtype(array.dtype).itemsize for array in arrays.values())


def read_params(path: Path) -> tuple[Params, Params]:
    """Read a network's file as (arguments, auxiliary states)."""
    named = read_arrays(path)
    for key in named:
        if not key.startswith(("arg:", "aux:")):
            raise RunError(f"{path}: found '{key}', expected names that begin with arg: or aux:")
    return split_params(named)


def join_params(arg_params: Params, aux_params: Params) -> Params:
    """Put arguments and auxiliary states under the names that MXNet's files have."""
    named = {f"arg:{name}": value for name, value in arg_params.items()}
    return named | {f"aux:{name}": value for name, value in aux_params.items()}


def split_params(named: Params) -> tuple[Params, Params]:
    """Undo :func:`join_params`."""
    groups: dict[str, Params] = {"arg": {}, "aux": {}}
    for key, value in named.items():
        group, _, name = key.partition(":")
        groups[group][name] = value
    return groups["arg"], groups["aux"]
