"""Download files of the hub (huggingface.co): resumed after interruption, checked by digest."""

from __future__ import annotations

import re
from pathlib import Path

from configs.errors import ConfigError
from train.atomic import digest
from train.errors import RunError

PREFIX = "hub:"
FILE = "model.safetensors"


def fetch(source: str) -> Path:
    """Download ``hub:OWNER/NAME``'s ``model.safetensors``, or ``hub:OWNER/NAME/FILE``.

    Returns
    -------
    Path
        The file in the hub's own cache (``HF_HOME``), where a later call finds it.

    Raises
    ------
    ConfigError
        Not the name of a repository.
    RunError
        No ``huggingface_hub``, no network, no such file, or a file with another digest.
    """
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+?)(?:/([\w./-]+))?", source)
    if not match:
        raise ConfigError(f"{source}: expected hub:OWNER/NAME or hub:OWNER/NAME/FILE")
    repository, name = match[1], match[2] or FILE
    try:
        from huggingface_hub import HfApi, constants, hf_hub_download
    except ImportError:
        raise RunError(
            f"{source}: huggingface_hub is not installed: "
            "pip install -c requirements.txt -e '.[hub]'"
        ) from None
    address = f"{constants.ENDPOINT}/{repository}/resolve/main/{name}"
    try:
        found = HfApi().model_info(repository, files_metadata=True, timeout=20)
        listed = {file.rfilename: file for file in found.siblings or ()}
        file = Path(hf_hub_download(repository, name, revision=found.sha))
    except Exception as error:  # of huggingface_hub and whatever network library it uses
        cause = " ".join(str(error).split())[:200]
        raise RunError(
            f"{source}: {name} could not be downloaded ({cause}); get {address} where there is a "
            "network, and convert the file"
        ) from None
    lfs = listed[name].lfs if name in listed else None
    if lfs is not None and digest(file) != lfs.sha256:
        file.unlink()
        raise RunError(f"{source}: {address} came damaged: its SHA-256 is not the hub's; try again")
    return file
