"""Train a network of the paper.

  python train/train_model.py --config configs/duc_hdc.cfg --data-root /data/cityscapes
  python train/train_model.py --config configs/duc_hdc.cfg --print-config

SIGTERM, SIGUSR1, SIGHUP, Ctrl-C and --time-limit save and end with exit code 75. --resume then
continues.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # first: sets threads before MXNet loads

import argparse

from configs.datasets import load_dataset
from configs.loader import dump, load_config
from train.stop import StopWish


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, type=Path, help="the experiment (.cfg)")
    parser.add_argument("--data-root", type=Path, help="the data set's folder")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME of the config)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--gpus", help="GPU numbers, as in 0,1 (default: all)")
    kind.add_argument("--cpus", type=int, help="train on that many CPU contexts")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")
    parser.add_argument("--allow-changes", action="store_true", help="resume with another config")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="then save and end")
    parser.add_argument("--ignore-memory", action="store_true", help="even if memory is too small")
    parser.add_argument("--print-config", action="store_true", help="show every key and stop")
    args = parser.parse_args(argv)

    config = load_config(args.config, args.set)
    if args.print_config:
        print(dump(config), end="")
        return 0
    dataset = load_dataset(config.data.dataset)
    if args.data_root is None:
        parser.error(f"--data-root is needed: the folder of the data set. {dataset.home}")
    out = args.out or Path("runs") / args.config.stem
    if not args.out and config.sources.get("data.dataset") == "--set":
        out = out.with_name(f"{out.name}-{dataset.name}")  # not the config's own data set
    print(f"training {args.config.stem} in {out}; loading MXNet ...", flush=True)
    with StopWish(args.time_limit) as stop:  # from here on, loading MXNet takes a while
        devices = contexts(args.gpus, args.cpus)
        from train.trainer import train  # loads MXNet, so the threads must be set before

        return train(
            config, dataset, args.data_root, out, devices,
            stop=stop, resume=args.resume, allow_changes=args.allow_changes,
            ignore_memory=args.ignore_memory,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
