"""Train on several worker processes, here or on many machines, with MXNet's parameter server.

    python train/launch.py -n 2 -s 1 -- --config configs/toy.cfg --data-root DIR
    python train/launch.py -n 4 -s 4 --hostfile hosts.txt --interface eth1 -- --config ...

What follows -- is for train/train_model.py; there `--set solver.kvstore=` chooses dist_sync (the
default), dist_device_sync or dist_async, and solver.batch_size is each worker's. With --hostfile (a
machine's name per line, taken in turn) processes start through ssh, in this folder and with this
Python; data and run folder must be the same files everywhere. Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP
save and end the job with exit code 75: start it again with --resume.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

THREADS = os.environ.get("OMP_NUM_THREADS")  # the user's value, before train.runtime sets it

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before MXNet loads

import argparse
import ipaddress
import socket
from dataclasses import dataclass

import psutil

from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.text_lists import read_lines
from train.distributed.job import Job, Member
from train.errors import RunError
from train.machine import PROJECT, allowed_cores

NODE = ("-m", "train.distributed.node")  # what each process runs


@dataclass(frozen=True)
class Listener:
    """Where the parameter server listens."""

    interface: str | None
    address: str
    warning: str | None


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", "--workers", type=int, required=True, help="processes that train")
    parser.add_argument("-s", "--servers", type=int, required=True, help="that add gradients up")
    parser.add_argument("--hostfile", type=Path, help="start through ssh on these machines")
    parser.add_argument("--interface", help="network device to use (default: lo without hostfile)")
    parser.add_argument(
        "--port", type=int, default=0, help="of the scheduler (default: a free one)"
    )
    parser.add_argument("--logs", type=Path, help="folder of a log for each process")
    parser.add_argument(
        "--patience", type=float, default=30, metavar="MINUTES",
        help="without an iteration before the job counts as hung (default: 30)",
    )  # fmt: skip
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- ...")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)

    if not THREADS:  # train.runtime's value suits this machine, not those of the hostfile
        os.environ.pop("OMP_NUM_THREADS", None)
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    if args.workers < 1 or args.servers < 1:
        raise ConfigError("-n and -s: expected at least 1 worker and 1 server")
    hosts = read_hosts(args.hostfile) if args.hostfile else [None]
    listener = find_listener(args.interface, hosts)
    if listener.warning:
        print(f"warning: {listener.warning}", file=sys.stderr)
    environment = {
        "DMLC_PS_ROOT_URI": listener.address,
        "DMLC_PS_ROOT_PORT": str(args.port or _free_port(listener.address)),
        "DMLC_NUM_WORKER": str(args.workers),
        "DMLC_NUM_SERVER": str(args.servers),
    }
    if listener.interface:
        environment["DMLC_INTERFACE"] = listener.interface
    if hosts == [None]:
        environment["DMLC_NODE_HOST"] = listener.address
    logs = args.logs or _beside_the_run(arguments)
    logs.mkdir(parents=True, exist_ok=True)
    members = [_member("scheduler", 0, None, environment, [], logs)]
    for role, count in (("server", args.servers), ("worker", args.workers)):
        members += [
            _member(role, rank, hosts[rank % len(hosts)], environment, arguments, logs)
            for rank in range(count)
        ]
    return Job(members, 60 * args.patience).run()


def read_hosts(file: Path) -> list[str]:
    """Read a machine's name per line; ``#`` begins a comment."""
    if not file.is_file():
        raise ConfigError(f"--hostfile {file}: no such file")
    try:
        lines = read_lines(file)
    except DataError:
        raise ConfigError(f"--hostfile {file}: not a text file") from None
    hosts = [host for line in lines if (host := line.text.partition("#")[0].strip())]
    for host in hosts:
        if len(host.split()) > 1 or host.startswith("-"):
            raise ConfigError(f"--hostfile {file}: expected one machine's name per line: '{host}'")
    if not hosts:
        raise ConfigError(f"--hostfile {file}: it names no machine")
    return hosts


def find_listener(interface: str | None, hosts: list[str | None]) -> Listener:
    """Choose the address of this machine that the others reach.

    The parameter server executes code that it receives (it unpickles). The choice therefore has a
    warning unless it is the loopback or a named interface with a private address.
    """
    if interface is None and hosts == [None]:
        interface = "lo"
    if interface is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((hosts[0], 9))  # sends nothing; asks for the route
            except OSError as error:
                raise RunError(f"--hostfile: cannot reach {hosts[0]} ({error.strerror})") from None
            address = probe.getsockname()[0]
        return Listener(None, address, _exposed(f"{address} and what each machine chooses"))
    found = psutil.net_if_addrs()
    if interface not in found:
        raise ConfigError(f"--interface {interface}: expected one of {', '.join(found)}")
    addresses = [a.address for a in found[interface] if a.family == socket.AF_INET]
    if not addresses:
        raise ConfigError(f"--interface {interface}: it has no IPv4 address")
    private = ipaddress.ip_address(addresses[0]).is_private
    return Listener(interface, addresses[0], None if private else _exposed(addresses[0]))


def _exposed(where: str) -> str:
    return (
        f"the parameter server listens on {where} and runs code that anyone who reaches it sends: "
        "name a private network's device with --interface"
    )


def _member(
    role: str, rank: int, host: str | None, shared: dict, arguments: list[str], logs: Path
) -> Member:
    """Describe one process: its command line, here or through ssh, and its environment."""
    environment = {
        **shared,
        "DMLC_ROLE": role,
        "PYTHONPATH": str(PROJECT),
        "DMLC_RANK": str(rank),
    }
    if host is None and not THREADS:
        share = max(1, allowed_cores() // int(shared["DMLC_NUM_WORKER"]))
        environment["OMP_NUM_THREADS"] = str(share if role == "worker" else 1)
    command_line = [sys.executable, *NODE, *(arguments if role == "worker" else [])]
    return Member(role, rank, host, command_line, environment, logs / f"{role}-{rank}.log")


def _beside_the_run(arguments: list[str]) -> Path:
    """``runs/toy.logs`` for the run folder ``runs/toy``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=Path("run"))
    parser.add_argument("--out", type=Path)
    known, _ = parser.parse_known_args(arguments)
    out = known.out or Path("runs") / known.config.stem
    return out.with_name(f"{out.name}.logs")


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
