r"""Refine saved probability maps by a fully connected CRF (paper, section 4.1.2).

  python tools/predict.py FOLDER --model runs/duc_hdc --save-probabilities --out results
  python tools/crf.py --images FOLDER --probabilities results --dataset cityscapes --out refined

Each probability map NAME.npz with its image NAME.* gives NAME.png, a palette PNG of train ids. The
parameters are the [crf] section of --config, by default the paper's; tools/crf_search.py searches
for better ones. Images are refined in parallel, as many at a time as cores and memory allow.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
from functools import partial

from configs.datasets import load_dataset
from configs.loader import load_config
from tools.inference.dense_crf import affordable_jobs, find_frames, refine_frame
from tools.inference.files import check_targets
from tools.shared.options import at_least_one
from tools.shared.parallel import in_processes
from tools.shared.pictures import write_labels
from train.atomic import new_folder
from train.machine import PROJECT

BASE = PROJECT / "configs" / "base.cfg"


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, type=Path, help="folder with the images")
    parser.add_argument("--probabilities", required=True, type=Path, help="folder with NAME.npz")
    parser.add_argument("--dataset", required=True, help="name or .yaml file of the class table")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--config", type=Path, default=BASE, help=".cfg with a [crf] section")
    parser.add_argument("--set", action="append", default=[], metavar="crf.KEY=VALUE")
    parser.add_argument("--jobs", type=int, help="images at a time")
    parser.add_argument("--resume", action="store_true", help="skip images whose result is there")
    args = parser.parse_args(argv)
    at_least_one("--jobs", args.jobs)

    crf = load_config(args.config, args.set).crf
    dataset = load_dataset(args.dataset)
    frames = find_frames(args.images, args.probabilities, dataset, args.out)
    targets = {frame: args.out / f"{frame.name}.png" for frame in frames}
    check_targets((frame.image for frame in frames), targets.values())
    todo = [frame for frame in frames if not (args.resume and targets[frame].is_file())]
    if todo:
        jobs = args.jobs or affordable_jobs([frame.image for frame in todo], dataset.num_classes)
        refine = partial(refine_frame, crf=crf)
        with new_folder(args.out):
            for frame, labels in in_processes(refine, todo, "refining", jobs):
                write_labels(targets[frame], labels, dataset)
    skipped = f", {len(frames) - len(todo)} were there already" if args.resume else ""
    print(f"{len(todo)} refined{skipped}, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
