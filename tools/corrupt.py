r"""Damage images by brightness, contrast, blur, noise, JPEG and scale, to test a network on them.

  python tools/corrupt.py FOLDER --out DAMAGED [--seed 0]
  for kind in brightness contrast blur noise jpeg scale; do
      python tools/predict.py DAMAGED/$kind --out RESULTS/$kind
      python tools/evaluate.py --dataset camvid --ground-truth LABELS --predictions RESULTS/$kind
  done

Each image NAME.* gives DAMAGED/KIND/NAME.png of the same size for each kind. The same seed gives
the same pixels. tools/scoring/corruptions.py defines each kind and its strength.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse

import cv2

from configs.errors import ConfigError
from data_iter.image_files import read_bgr
from tools.inference.files import check_targets, find_images
from tools.scoring.corruptions import CORRUPTIONS, corrupt
from tools.shared.parallel import in_threads
from train.atomic import atomic_write


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="an image, or a folder with images, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of the random values (default: 0)")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed}: expected at least 0")
    images = find_images(args.images, args.out)[0]

    def target(file: Path, kind: str) -> Path:
        return args.out / kind / f"{file.stem}.png"

    check_targets(images, (target(file, kind) for file in images for kind in CORRUPTIONS))

    def damage(file: Path) -> None:
        image = read_bgr(file)
        for kind in CORRUPTIONS:
            with atomic_write(target(file, kind)) as temporary:
                encoded = cv2.imencode(".png", corrupt(image, kind, file.stem, args.seed))[1]
                temporary.write_bytes(encoded.tobytes())

    in_threads(damage, images, "damaging")
    print(f"{args.out}: {len(images)} images, each in {len(CORRUPTIONS)} kinds of damage")
    return 0


if __name__ == "__main__":
    sys.exit(main())
