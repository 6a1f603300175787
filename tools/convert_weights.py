r"""Convert pretrained weights to this project's names.

  python tools/convert_weights.py list
  python tools/convert_weights.py pytorch hub:timm/resnet101s.gluon_in1k --out resnet101s.params
  python tools/convert_weights.py pytorch resnet101.npz --out resnet101.params
  python tools/convert_weights.py check resnet101.params --images DIR --set network.KEY=VALUE ...
  python tools/convert_weights.py recalibrate resnet101.params --images DIR --out true.params
  python tools/convert_weights.py gluoncv resnet101_v1s --out resnet101_v1s.params
  python tools/convert_weights.py gluoncv resnet101_v1 --params FILE --out resnet101_v1.params
  python tools/convert_weights.py release ResNet_101_DUC_HDC-0040.params --out runs/release
  python tools/convert_weights.py onnx ResNet101-DUC-7.onnx --out runs/release

pytorch   ImageNet weights of a ResNet-18 to 152 under the names of torchvision and timm or of
          transformers (.safetensors, .npz, or .pth if PyTorch is installed) become a .params file
          of the backbone, from which a training starts; the options for train_model.py are
          printed. A network that can't be mapped exactly is refused with the reason. ImageNet's
          usual standard deviation is folded into the first convolution. This is exact, also at the
          borders: both projects pad with the mean colour, which is 0 for the network.
gluoncv   the same for the GluonCV model zoo (its v1, v1b and v1s; downloaded by gluoncv, or read
          from --params).
release   the authors' Cityscapes checkpoint becomes a run folder.
onnx      the parameters of the ONNX model zoo's ResNet101-DUC-7.onnx or -12.onnx become one. Both
          have the network of configs/release.cfg, or of --config. predict.py, export_onnx.py and
          solver.init_from take run folders.
check     compares the batch norms' stored statistics with those of photographs, read in the order
          and with the mean of --config and --set (give the options that the conversion printed):
          it reports another channel order, scale or mean. If the statistics are folded into gamma
          and beta (mean 0, variance 1), the check is impossible.
recalibrate  gives folded batch norms measured statistics: the same function, ready to learn BN.
          Layers of the file that the network lacks (network.stages) stay as they are.
list      prints each source with its address, size, licence, and when its link was last seen alive.

Only parameters are read, never a graph.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse
import re
from collections.abc import Callable

import mxnet as mx
import yaml

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Config
from tools.weights.backbone import Backbone
from tools.weights.gluoncv import NAMES, read_zoo
from tools.weights.hub import PREFIX, fetch
from tools.weights.onnx_params import read_onnx_params
from tools.weights.photographs import (
    check_backbone,
    find_photographs,
    read_photographs,
    recalibrate,
)
from tools.weights.pytorch import read_pytorch
from train.command import PROBLEMS
from train.machine import PROJECT
from train.network import build_symbol, check_params
from train.params import Params, join_params, read_params, save_arrays
from train.run_dir import new_run
from train.statistics import are_folded, measure, stored, verdict

BASE, RELEASE = (PROJECT / "configs" / name for name in ("base.cfg", "release.cfg"))
SOURCES = PROJECT / "tools" / "weights" / "sources.yaml"


def list_sources(args: argparse.Namespace) -> int:
    """Print every known source of weights."""
    for row in yaml.safe_load(SOURCES.read_text(encoding="utf-8")):
        print(f"{row['source']}")
        print(f"    {row['convert']:9} {row['fits']}")
        print(f"    {row['mb']} MB; licence: {row['licence']}; {row['state']} ({row['reported']})")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print whether weights belong to a preprocessing."""
    config, dataset, params = measured_network(args)
    batches = list(read_photographs(find_photographs(args.images, args.count), config))
    found = verdict(config, dataset, params, batches, mx.cpu())
    print(f"{args.params}: {found.text}")
    return PROBLEMS if found.disagree else 0


def recalibrated(args: argparse.Namespace) -> int:
    """Write weights with measured statistics."""
    check_suffix(args.out)
    config, dataset, params = measured_network(args)
    files = find_photographs(args.images, args.count)
    symbol = build_symbol(config, dataset)
    there = {output.removesuffix("_output") for output in symbol.get_internals().list_outputs()}
    convolutions = [name for name in stored(params[1]) if name in there]
    measured = measure(symbol, params, convolutions, read_photographs(files, config), mx.cpu())
    recalibrate(params, measured, config.network.bn_eps)
    save_arrays(args.out, join_params(*params))
    print(f"{args.out}: the same function, with batch-norm statistics of {len(files)} images")
    return 0


def measured_network(
    args: argparse.Namespace,
) -> tuple[Config, DatasetSpec, tuple[Params, Params]]:
    """Read the parameters for ``recalibrate`` and ``check``, and their network."""
    config = load_config(args.config, args.set)
    dataset, params = load_dataset(config.data.dataset), read_params(args.params)
    symbol = build_symbol(config, dataset)
    check_backbone(symbol, params, args.params, config.network.downsample)
    return config, dataset, params


def pytorch(args: argparse.Namespace) -> int:
    """Convert a checkpoint of PyTorch's."""
    check_suffix(args.out)
    file = fetch(args.file) if args.file.startswith(PREFIX) else Path(args.file)
    backbone, params, notes = read_pytorch(file)
    if are_folded(stored(params[1])):
        notes.append(
            "batch-norm statistics are folded (0 and 1): fit for training with BN fixed; before "
            "it is learned give them true ones (convert_weights.py recalibrate)"
        )
    for note in notes:
        print(f"{args.file}: {note}")
    return write_backbone(args.out, backbone, params)


def gluoncv(args: argparse.Namespace) -> int:
    """Convert a network of GluonCV's zoo."""
    check_suffix(args.out)
    return write_backbone(args.out, *read_zoo(args.name, args.params))


def check_suffix(out: Path) -> None:
    """Refuse a file name that training does not read."""
    if out.suffix != ".params":
        raise ConfigError(f"--out {out}: expected a file name that ends in .params")


def write_backbone(out: Path, backbone: Backbone, params: tuple[Params, Params]) -> int:
    """Write parameters for the start of a training, and print the options that they need."""
    save_arrays(out, join_params(*params))
    options = " ".join(f"--set network.{key}={v}" for key, v in backbone.options.items())
    print(f"{out}: {sum(map(len, params))} parameters of ResNet-{backbone.depth}. Train with")
    print(f"  {options}")
    print(f"  --set solver.init_from={out.resolve()}")
    return 0


def released(args: argparse.Namespace) -> int:
    """Make a run folder from the authors' parameters, in MXNet's format or ONNX."""
    config = load_config(args.config)
    dataset, side = load_dataset(config.data.dataset), config.network.downsample
    symbol = build_symbol(config, dataset)
    if args.kind == "onnx":
        epoch, params = 0, read_onnx_params(args.file, symbol, side)
    else:
        number = re.search(r"-(\d{4})\.params$", args.file.name)
        epoch, params = int(number[1]) if number else 0, read_params(args.file)
        check_params(symbol, *params, args.file, side)
    with new_run(args.out) as run:
        run.create(config, dataset)
        save_arrays(run.params_file(epoch), join_params(*params))
    print(f"{args.out}: a run folder; python tools/predict.py IMAGE --model {args.out}")
    return 0


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)

    def kind(name: str, run: Callable[[argparse.Namespace], int], meaning: str):
        added = kinds.add_parser(name, help=meaning)
        added.set_defaults(run=run)
        return added

    other = kind("pytorch", pytorch, "a ResNet of torchvision, timm or transformers")
    other.add_argument(
        "file", help=".safetensors or .npz; .pth where torch is installed; or hub:OWNER/NAME"
    )
    other.add_argument("--out", type=Path, required=True, metavar="FILE.params")
    zoo = kind("gluoncv", gluoncv, "ImageNet weights of the GluonCV model zoo")
    zoo.add_argument("name", help=", ".join(NAMES))
    zoo.add_argument("--params", type=Path, help="the zoo's file (default: gluoncv downloads it)")
    zoo.add_argument("--out", type=Path, required=True, metavar="FILE.params")
    for name, meaning in (("release", "the authors' .params"), ("onnx", "an .onnx of it")):
        other = kind(name, released, meaning)
        other.add_argument("file", type=Path)
        other.add_argument("--config", type=Path, default=RELEASE, help="default: release.cfg")
        other.add_argument("--out", type=Path, required=True, metavar="RUN_DIR")
    for name, run, meaning, count in (
        ("check", check, "do weights belong to this preprocessing?", 48),
        ("recalibrate", recalibrated, "true batch-norm statistics for folded ones", 300),
    ):
        other = kind(name, run, meaning)
        other.add_argument("params", type=Path, metavar="FILE.params")
        other.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs")
        other.add_argument("--count", type=int, default=count, help=f"of them at most ({count})")
        other.add_argument("--config", type=Path, default=BASE, help="default: base.cfg")
        other.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    other.add_argument("--out", type=Path, required=True, metavar="FILE.params")
    kind("list", list_sources, "every known source: what it fits, size, licence, link")
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
