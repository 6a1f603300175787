r"""Serve networks on a local page and over HTTP.

    python tools/serve.py                              the embedded network, on 127.0.0.1:8000
    python tools/serve.py --model runs/a runs/b        two networks to compare

Open the address in a browser and drop a picture. Programs send the bytes of an image:

    curl -H 'Content-Type: image/png' --data-binary @street.png \
        127.0.0.1:8000/v1/segment --output labels.png

With ?format=json the answer is JSON: each class's share, and the label PNG.

/openapi.json describes the interface. There are no users or passwords, and --host opens the address
to other machines. After SIGTERM or Ctrl-C, running requests are finished. It needs an extra: pip
install -e '.[serve]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command, contexts  # isort: skip  # first: sets threads before MXNet loads

import argparse
import socket

from configs.errors import ConfigError
from tools.inference.backends import BACKENDS, require
from tools.inference.predictor import load
from tools.shared.options import EMBEDDED, add_epoch, read_epoch
from train.errors import RunError


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; ``RunError`` gives the reason if it fails."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise RunError(f"{host}:{port}: {error.strerror or error}") from None


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, nargs="+", default=[EMBEDDED], help="run folders or ONNX files")
    add_epoch(parser)
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add("--backend", choices=("mxnet", *BACKENDS), help="default: mxnet, of ONNX onnxruntime")
    add("--gpus", help="number of the GPU to use (default: the first, if any)")
    add("--max-megabytes", type=int, default=16, help="of an upload (default: 16)")
    add("--max-megapixels", type=int, default=12, help="of an image (default: 12)")
    add("--max-seconds", type=float, default=20, help="for an upload to come in (default: 20)")
    add("--max-waiting", type=int, default=8, help="requests at a time (default: 8)")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    if min(args.max_megabytes, args.max_megapixels, args.max_waiting) < 1:
        raise ConfigError("--max-megabytes, --max-megapixels and --max-waiting: at least 1 each")
    if not 0 <= args.port < 1 << 16:
        raise ConfigError(f"--port {args.port}: expected 0 to 65535")
    names = [path.stem or str(path) for path in args.model]
    if len(set(names)) < len(names):
        raise ConfigError(f"--model: two have the name {max(names, key=names.count)}")
    require("uvicorn", extra="serve")
    require("starlette", extra="serve")
    import uvicorn

    from tools.serving.app import create_app
    from tools.serving.uploads import Limits

    context, epoch = contexts(args.gpus)[0], read_epoch(args.epoch)
    networks = {
        name: load(path, epoch=epoch, backend=args.backend, context=context)
        for name, path in zip(names, args.model)
    }
    limits = Limits(args.max_megabytes, args.max_megapixels, args.max_seconds, args.max_waiting)
    config = uvicorn.Config(
        create_app(networks, limits), args.host, args.port, log_level="warning",
        timeout_keep_alive=5, limit_concurrency=512,
    )  # fmt: skip
    with listen(args.host, args.port) as listening:
        host, port = listening.getsockname()[:2]
        print(f"serving {', '.join(names)} on http://{host}:{port}/", flush=True)
        uvicorn.Server(config).run([listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
