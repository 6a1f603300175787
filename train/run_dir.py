"""A run folder: everything that a training writes and that prediction needs.

``config.cfg``          the resolved configuration (no paths of this machine)
``dataset.yaml``        the class table
``model-symbol.json``   the graph, for other programs; this project rebuilds it from the config
``inference-symbol.json``  only in folders that ``tools/quantize.py`` makes: the graph that predicts
``inference-int8.onnx``  in such a folder too: the int8 network for other libraries
``images.json``         the size of the training images, which ``predict.py --long-side auto`` uses
``model-0020.params``   parameters after 20 epochs, in MXNet's format and naming
``checkpoints.json``    what can be resumed from: :mod:`train.checkpoint`
``SHA256SUMS``          digests of what is read again and not in that list: :mod:`train.digests`
``starts.jsonl``        command, commit, versions and devices of every start
``log.jsonl``           a JSON object per line: :mod:`train.run_log`; ``train.log`` for people
"""

from __future__ import annotations

import json
import logging
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec, load_dataset
from configs.loader import differences, dump, load_config
from configs.schema import Config
from symbols.graph import as_json

from . import cuda, machine
from .atomic import atomic_folder, locked, remove_leftovers
from .checkpoint import EPOCH, MANIFEST, Progress, check_params, read_manifest
from .digests import SUMS, check_listed, list_file, write_listed
from .errors import RunError, reason
from .network import build_symbol
from .params import Params, join_params, read_params, save_arrays
from .run_log import RunLog, log_to

PARAMS = re.compile(EPOCH + r"(\d{4})\.params")
IMAGES, LONG_SIDE = "images.json", re.compile(r'\{"long_side": ([1-9]\d{0,5})\}')
LOCK = ".lock"
INFERENCE_SYMBOL, INFERENCE_ONNX = "inference-symbol.json", "inference-int8.onnx"


class RunDir:
    """The files of one run; the constructor reads and writes nothing."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.log = RunLog(self.path)

    @contextmanager
    def open(
        self, config: Config, dataset: DatasetSpec, resume: bool, allow_changes: bool
    ) -> Iterator[None]:
        """Lock the folder for one job and prepare it, with ``train.log`` in it.

        Raises
        ------
        RunError
            Another job has it; it is not empty and ``resume`` is off; or the run in it was begun
            with another configuration and ``allow_changes`` is off.

        A run that fails before its first record or checkpoint leaves nothing behind.
        """
        remove_leftovers(self.path)
        goes_on = resume and self.begun()
        if not goes_on:
            self._check_new()
        made = not self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        taken = RunError(f"{self.path}: another job is training in this folder")
        with locked(self.path / LOCK, taken):
            try:
                if not goes_on:
                    self.describe(config, dataset)
                elif not allow_changes:
                    self._check_same(config, dataset)
                log_to(logging.FileHandler(self.path / "train.log", encoding="utf-8"))
                yield
            except Exception:
                if not (goes_on or self.log.length or read_manifest(self.path)):
                    self._clear(made)
                raise

    @contextmanager
    def join(self) -> Iterator[None]:
        """Take part in a job whose rank 0 has locked the folder; write nothing in it."""
        log_to()
        yield

    def create(self, config: Config, dataset: DatasetSpec) -> None:
        """Write the files that are known before training; ``RunError`` if the folder has others."""
        self._check_new()
        self.path.mkdir(parents=True, exist_ok=True)
        self.describe(config, dataset)

    def describe(self, config: Config, dataset: DatasetSpec) -> None:
        """Write the files that prediction needs beside parameters, if they are not there yet."""
        if self.begun() and self.load() == (config, dataset):
            return
        self._write("dataset.yaml", dataset.dump())
        self._write("model-symbol.json", build_symbol(config, dataset).tojson())
        self._write("config.cfg", dump(config))

    def _check_new(self) -> None:
        begun = {LOCK}
        if (self.path / SUMS).is_file():  # digests are written first, so these are a killed start's
            begun |= {SUMS, "dataset.yaml", "model-symbol.json", "config.cfg", "train.log"}
        if any(file.name not in begun for file in self.path.glob("*")):
            raise RunError(
                f"{self.path}: the folder is not empty; go on with --resume, or name another --out"
            )

    def _clear(self, itself: bool) -> None:
        """Remove all files, and the folder ``itself``."""
        log_to()  # closes train.log
        with suppress(OSError):  # the earlier error is the important one
            for entry in self.path.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            if itself:
                self.path.rmdir()

    def begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.cfg").is_file()

    def _check_same(self, config: Config, dataset: DatasetSpec) -> None:
        before, table = self.load()
        changed = differences(before, config)
        changed += [
            f"{name} of the class table"
            for name in ("name", "layout", "ignore_id", "label_kind", "classes")
            if getattr(table, name) != getattr(dataset, name)
        ]
        if changed:
            raise RunError(
                f"{self.path}: the run was begun with another configuration: {'; '.join(changed)}; "
                "resume with --allow-changes if that is meant"
            )

    def _write(self, name: str, text: str) -> None:
        write_listed(self.path / name, text.encode())

    def load(self) -> tuple[Config, DatasetSpec]:
        """Read the configuration and the class table."""
        if not self.begun():
            raise RunError(f"{self.path}: not a run folder: it has no config.cfg")
        for name in ("config.cfg", "dataset.yaml"):
            check_listed(self.path / name)
        return load_config(self.path / "config.cfg"), load_dataset(self.path / "dataset.yaml")

    def epochs(self) -> list[int]:
        """List the epochs whose parameters are there, ascending."""
        matches = (PARAMS.fullmatch(file.name) for file in self.path.glob(f"{EPOCH}*.params"))
        return sorted(int(match[1]) for match in matches if match)

    def newest_epoch(self) -> int:
        """Return the last of :meth:`epochs`; ``RunError`` where there is none."""
        epochs = self.epochs()
        if not epochs:
            raise RunError(f"{self.path}: no parameters in it ({EPOCH}NNNN.params)")
        return epochs[-1]

    def params_file(self, epoch: int) -> Path:
        """Name the parameters after ``epoch`` epochs."""
        return self.path / f"{EPOCH}{epoch:04d}.params"

    def best_epoch(self) -> int:
        """Return the epoch with the best validation score; ``RunError`` if none is known."""
        entries = read_manifest(self.path) if (self.path / MANIFEST).is_file() else []
        best = Progress(**entries[-1]["progress"]).best_epoch if entries else None
        if best is None:
            raise RunError(f"{self.path}: no epoch of it was validated, so none is known as best")
        return best

    def chosen_epoch(self, epoch: int | str | None = None) -> int:
        """Return the number of an epoch, of ``"best"``, or of the newest (None or ``"last"``)."""
        if epoch == "best":
            return self.best_epoch()
        return self.newest_epoch() if epoch in (None, "last") else int(epoch)

    def load_params(self, epoch: int | str | None = None) -> tuple[Params, Params]:
        """Read the parameters of an epoch; see :meth:`chosen_epoch`."""
        file = self.params_file(self.chosen_epoch(epoch))
        if file.is_file() and not check_params(self.path, file.stem):
            check_listed(file)
        return read_params(file)

    def long_side(self) -> int | None:
        """Return the median length of the training images' longer sides in pixels, if noted."""
        file = self.path / IMAGES
        if not file.is_file():
            return None
        check_listed(file)
        match = LONG_SIDE.fullmatch(file.read_text(encoding="utf-8", errors="replace").strip())
        if not match:
            raise RunError(f'{file}: expected {{"long_side": PIXELS}}')
        return int(match[1])

    def note_long_side(self, length: int) -> None:
        """Write the number that :meth:`long_side` reads."""
        self._write(IMAGES, json.dumps({"long_side": length}) + "\n")

    def save_params(self, epoch: int, params: tuple[Params, Params]) -> None:
        """Write parameters that were not trained here."""
        file = self.params_file(epoch)
        save_arrays(file, join_params(*params))
        list_file(file)

    def is_for_inference(self) -> bool:
        """Whether the folder holds a graph made for inference (int8, bf16)."""
        return (self.path / INFERENCE_SYMBOL).is_file()

    def inference_graph(self) -> mx.sym.Symbol:
        """Read that graph."""
        file = self.path / INFERENCE_SYMBOL
        check_listed(file)
        try:
            return mx.sym.load(str(file))
        except mx.base.MXNetError as error:
            raise RunError(f"{file}: not a whole graph ({reason(error)})") from None
        except UnicodeDecodeError:
            raise RunError(f"{file}: damaged: it is not UTF-8 text") from None

    def save_inference_graph(self, symbol: mx.sym.Symbol) -> None:
        """Write the graph for prediction; it replaces the one that the configuration describes."""
        self._write(INFERENCE_SYMBOL, as_json(symbol))

    @property
    def inference_onnx(self) -> Path:
        """Name the file of the int8 network for other libraries than MXNet; it may be missing."""
        return self.path / INFERENCE_ONNX

    def note_start(self, contexts: list[mx.Context], seed: int) -> None:
        """Append to ``starts.jsonl`` what is needed to repeat this start."""
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "commit": machine.commit(),
            "seed": seed,
            "devices": [str(context) for context in contexts],
            "gpus": [str(gpu) for gpu in cuda.gpus()],
            "processor": machine.processor(),
            "machine": f"{platform.node()} {platform.platform()}",
            "python": platform.python_version(),
            "versions": machine.versions(),
        }
        with (self.path / "starts.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


@contextmanager
def new_run(out: Path) -> Iterator[RunDir]:
    """Yield a run folder to fill; it appears as ``out`` only if the block ends without an error.

    Raises
    ------
    RunError
        ``out`` exists already.
    """
    if out.exists():
        raise RunError(f"{out}: exists already; name another --out")
    with atomic_folder(out) as made:
        yield RunDir(made)
