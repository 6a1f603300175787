r"""Bring pretrained weights into this project's names.

  python tools/convert_weights.py gluoncv resnet101_v1s --out resnet101_v1s.params
  python tools/convert_weights.py gluoncv resnet101_v1 --params FILE --out resnet101_v1.params
  python tools/convert_weights.py release ResNet_101_DUC_HDC-0040.params --out runs/release
  python tools/convert_weights.py onnx ResNet101-DUC-7.onnx --out runs/release

gluoncv   ImageNet weights of the GluonCV model zoo (its v1, v1b and v1s; downloaded by gluoncv, or
          read from --params; 100 to 240 MB; GluonCV is under Apache 2.0) become a .params file of
          the backbone, from which a training starts: the options to give to train_model.py are
          printed. GluonCV's std goes into the first convolution, exactly, borders included: both
          projects pad with the mean colour, which is 0 to the network.
release   the authors' Cityscapes checkpoint (260 MB, linked from github.com/TuSimple/TuSimple-DUC,
          which states no licence) becomes a run folder, as do
onnx      the parameters of the ONNX model zoo's ResNet101-DUC-7.onnx (260,681,709 bytes) or
          -12.onnx (260,671,144 bytes; github.com/onnx/models, in
          validated/vision/object_detection_segmentation/duc; Apache 2.0 by its README).
          Both have the network of configs/release.cfg, or of --config. predict.py, export_onnx.py
          and solver.init_from take run folders. They were trained on Cityscapes, whose terms allow
          non-commercial use.

Only parameters are taken over, never a graph.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # first: sets threads before MXNet loads

import argparse
import re

from configs.datasets import load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Config
from tools.weights.onnx_params import read_onnx_params
from tools.weights.gluoncv import convert, network_options
from train.errors import RunError
from train.network import build_symbol, check_params
from train.params import Params, join_params, read_arrays, read_params, save_arrays
from train.run_dir import new_run
from train.machine import PROJECT

RELEASE = PROJECT / "configs" / "release.cfg"


def zoo_params(name: str, file: Path | None) -> tuple[Params, Params]:
    """Read zoo network ``name`` from ``file``, or from gluoncv's own download, and convert it."""
    network_options(name)
    if file is None:
        from gluoncv.model_zoo.model_store import get_model_file

        try:
            file = Path(get_model_file(name))
        except Exception as error:  # whatever gluoncv and its network library raise
            cause = " ".join(str(error).split())
            raise RunError(
                f"{name}: gluoncv could not download it ({cause}); give --params FILE"
            ) from None
    return convert(name, read_arrays(file), str(file))


def write_run(out: Path, config: Config, epoch: int, params: tuple[Params, Params]) -> None:
    """Write a run folder of parameters."""
    with new_run(out) as run:
        run.create(config, load_dataset(config.data.dataset))
        run.save_params(epoch, params)


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    zoo = kinds.add_parser("gluoncv", help="ImageNet weights of the GluonCV model zoo")
    zoo.add_argument("name", help="resnet{50,101,152}_{v1,v1b,v1s}")
    zoo.add_argument("--params", type=Path, help="the zoo's file (default: gluoncv downloads it)")
    zoo.add_argument("--out", type=Path, required=True, metavar="FILE.params")
    for kind, meaning in (("release", "the authors' .params"), ("onnx", "an .onnx of it")):
        other = kinds.add_parser(kind, help=meaning)
        other.add_argument("file", type=Path)
        other.add_argument("--config", type=Path, default=RELEASE, help="default: release.cfg")
        other.add_argument("--out", type=Path, required=True, metavar="RUN_DIR")
    args = parser.parse_args(argv)

    if args.kind == "gluoncv":
        if args.out.suffix != ".params":
            raise ConfigError(f"--out {args.out}: expected a file name that ends in .params")
        params = zoo_params(args.name, args.params)
        save_arrays(args.out, join_params(*params))
        settings = network_options(args.name)
        print(f"{args.out}: {sum(map(len, params))} parameters. Train from it with")
        print("  " + " ".join(f"--set network.{key}={value}" for key, value in settings.items()))
        print(f"  --set solver.init_from={args.out.resolve()}")
        return 0
    config = load_config(args.config)
    symbol = build_symbol(config, load_dataset(config.data.dataset))
    side = config.network.downsample
    if args.kind == "onnx":
        epoch, params = 0, read_onnx_params(args.file, symbol, side)
    else:
        number = re.search(r"-(\d{4})\.params$", args.file.name)
        epoch, params = int(number[1]) if number else 0, read_params(args.file)
        check_params(symbol, *params, args.file, side)
    write_run(args.out, config, epoch, params)
    print(f"{args.out}: a run folder; python tools/predict.py IMAGE --model {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
