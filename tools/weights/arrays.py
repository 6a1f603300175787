"""Read float arrays from checkpoint files without running their code: safetensors, npz, pth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from configs.errors import ConfigError
from data_iter.image_files import check_regular
from train.errors import RunError

WRAPPERS = ("state_dict", "model")  # keys under which trainers store the parameters
COUNTER = "num_batches_tracked"  # suffix of counts of training steps, which are not needed
SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SAVE_AS_SAFETENSORS = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "d = torch.load('{file}', 'cpu', weights_only=True); "
    "save_file({{k: v.contiguous() for k, v in d.items()}}, '{stem}.safetensors')\""
)
Stored = tuple[str, str, Any]  # name, type as NumPy or PyTorch calls it, what holds the values


def read_checkpoint(file: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read a file's arrays.

    Returns
    -------
    dict of str to ndarray
        float32, whatever float type they are stored in.
    list of str
        Changes to them, for the user.

    Raises
    ------
    ConfigError, DataError, RunError
        The file has an unknown format, is a pipe, is damaged, or holds arrays that are not floats.
    """
    readers = {".safetensors": _safetensors, ".npz": _npz}
    readers |= dict.fromkeys((".pth", ".pt", ".bin", ".tar"), _pickle)
    if file.suffix not in readers:
        raise ConfigError(f"{file}: expected a file that ends in .safetensors, .npz or .pth")
    if not file.exists():
        raise RunError(f"{file}: no such file")
    check_regular(file)
    arrays, notes, narrow = {}, [], set()
    for name, kind, values in readers[file.suffix](file, notes):
        if name.endswith(COUNTER):
            continue
        if kind not in SAFETENSORS_TYPES.values():
            raise RunError(
                f"{file}: {name} is stored as {kind}, expected floats of 16 bits or more"
            )
        if kind in ("float16", "bfloat16"):
            narrow.add(kind)
        arrays[name] = np.asarray(values, np.float32)
    if narrow:
        notes.append(f"arrays in {' and '.join(sorted(narrow))} are widened to float32")
    return arrays, notes


def _safetensors(file: Path, notes: list[str]) -> Iterator[Stored]:
    try:
        tensors = deserialize(file.read_bytes())
    except SafetensorError as error:
        raise RunError(f"{file}: not a whole safetensors file ({error})") from None
    for name, tensor in tensors:
        kind, values = SAFETENSORS_TYPES.get(tensor["dtype"], tensor["dtype"]), None
        if kind == "bfloat16":  # the upper half of a float32
            values = (np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16).view("<f4")
        elif kind in SAFETENSORS_TYPES.values():
            values = np.frombuffer(tensor["data"], np.dtype(kind).newbyteorder("<"))
        yield name, kind, None if values is None else values.reshape(tensor["shape"])


def _npz(file: Path, notes: list[str]) -> Iterator[Stored]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # of zipfile, zlib or NumPy, depending on the damage
        raise RunError(f"{file}: not a whole .npz file of arrays ({error})") from None
    for name, values in arrays.items():
        yield name, str(values.dtype), values


def _pickle(file: Path, notes: list[str]) -> Iterator[Stored]:
    """Read a ``.pth`` with PyTorch, which runs no code of the file with ``weights_only``."""
    try:
        import torch
    except ImportError:
        command = SAVE_AS_SAFETENSORS.format(file=file, stem=file.stem)
        raise RunError(
            f"{file}: PyTorch is needed to read this format and is not installed here; where it "
            f"is, make a safetensors file of it: {command}"
        ) from None
    try:
        tree = torch.load(str(file), map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile or torch, depending on the damage
        cause = " ".join(str(error).strip().splitlines()[:1])
        raise RunError(
            f"{file}: not a whole file of tensors and nothing else; no code of it was run ({cause})"
        ) from None
    while isinstance(tree, dict) and any(isinstance(tree.get(key), dict) for key in WRAPPERS):
        key = next(key for key in WRAPPERS if isinstance(tree.get(key), dict))
        notes.append(f"the parameters are those under '{key}'")
        tree = tree[key]
    for name, tensor in tree.items() if isinstance(tree, dict) else ():
        if isinstance(tensor, torch.Tensor):
            floats = tensor.detach().float().numpy() if tensor.is_floating_point() else None
            yield str(name), str(tensor.dtype).removeprefix("torch."), floats
