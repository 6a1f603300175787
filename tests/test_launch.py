"""Distributed jobs as real processes on the loopback device: results, resuming, lost processes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import training

from configs.errors import ConfigError
from train import launch
from train.distributed.job import Job, Member
from train.distributed.node import BEAT
from train.run_dir import RunDir

LAUNCH = training.PROJECT / "train/launch.py"
BY_HAND = training.PROJECT / "train/distributed/by_hand.sh"
SAVED = 75
LAST = "model-0002.params"
# Frozen BN and a mean over all pixels: then two workers are exactly one with twice the batch.
FROZEN = (
    "--set=solver.learn_bn_epochs=0", "--set=solver.init_from=none",
    "--set=solver.normalization=fixed",
    "--set=solver.init_magnitude=0.7",
)  # fmt: skip
SHORT = ("--set=solver.epochs=2", "--set=solver.batch_size=2", "--set=data.scales=1")
ENDLESS = "--set=solver.epochs=5000"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training.write_frames(tmp_path_factory.mktemp("frames"))


def options(root, out, *more):
    return training.command(root, out, *more)[2:]


def job(root, out, *more, launcher=()):
    """Run a job of two workers and a server to its end."""
    command = [sys.executable, LAUNCH, "-n", "2", "-s", "1", *launcher, "--"]
    return subprocess.run(
        [*command, *options(root, out, *more)],
        cwd=root, env=training.environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def start_job(root, out, *more):
    command = [sys.executable, LAUNCH, "-n", "2", "-s", "1", "--", *options(root, out, *more)]
    return subprocess.Popen(
        command, cwd=root, env=training.environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_iteration(process, out):
    """Wait until the job trains; return its processes by (role, rank)."""
    while process.poll() is None:
        if (out / "log.jsonl").is_file() and "iteration" in (out / "log.jsonl").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail(process.communicate()[0])
    members = {}
    for child in psutil.Process(process.pid).children():
        environment = child.environ()
        members[environment["DMLC_ROLE"], int(environment["DMLC_RANK"])] = child
    return members


def digests(folder):
    """The digest of its parameters that each worker logged last."""
    found = [re.findall(r"parameters (\w{8})", f.read_text()) for f in folder.glob("worker-*.log")]
    return [lines[-1] for lines in found]


def distance(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[key] - second[key]).max()) for key in first)


# ---- the arithmetic


@pytest.mark.slow
def test_two_workers_over_ssh_equal_one_with_twice_the_batch(root, tmp_path, monkeypatch):
    """`ssh HOST COMMAND` is a stand-in that runs the command here, in a shell as sshd does."""
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        '#!/bin/sh\necho "$3" >> "$(dirname "$0")/hosts"; echo Welcome to $3\nexec sh -c "$4"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    (tmp_path / "hosts.txt").write_text("node-a  # the first\nnode-b\n")
    two = job(
        root, tmp_path / "two", *FROZEN, *SHORT,
        launcher=("--hostfile", tmp_path / "hosts.txt", "--interface", "lo"),
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert sorted((ssh.parent / "hosts").read_text().split()) == ["node-a", "node-a", "node-b"]
    first, second = digests(tmp_path / "two.logs")
    assert first == second
    assert "warning" not in two.stderr
    assert "Traceback" not in two.stderr  # the remote shell's greeting does no harm

    one = training.train(root, tmp_path / "one", *FROZEN, *SHORT, solver__batch_size=4)
    half = training.train(root, tmp_path / "half", *FROZEN, *SHORT, "--set=solver.epochs=1")
    assert one.returncode == half.returncode == 0, one.stderr + half.stderr
    parameters = training.arrays(tmp_path / "two", LAST)
    assert distance(parameters, training.arrays(tmp_path / "one", LAST)) < 1e-5
    control = training.arrays(tmp_path / "half", "model-0001.params")  # as many iterations
    assert distance(parameters, control) > 1e-3


@pytest.mark.slow
def test_two_workers_that_cut_their_batches_equal_one_that_does_not(root, tmp_path):
    """Also, both end when the first one's validation shows no progress (solver.stop_after)."""
    ends = ("--set=solver.epochs=9", "--set=solver.stop_after=1")
    two = job(root, tmp_path / "two", *FROZEN, *SHORT, *ends, "--set=solver.accumulate=2")
    assert two.returncode == 0, two.stderr
    one = training.train(root, tmp_path / "one", *FROZEN, *SHORT, *ends, solver__batch_size=4)
    assert one.returncode == 0, one.stderr
    last = RunDir(tmp_path / "one").newest_epoch()
    assert RunDir(tmp_path / "two").newest_epoch() == last < 9
    assert f"done after {last} epochs: 1 without a better validation mIoU" in one.stderr
    first, second = digests(tmp_path / "two.logs")
    assert first == second
    parameters = training.arrays(tmp_path / "two", f"model-{last:04d}.params")
    others = training.arrays(tmp_path / "one", f"model-{last:04d}.params")
    assert distance(parameters, others) < 1e-5


@pytest.mark.slow
def test_a_stopped_and_resumed_job_equals_one_started_by_hand(root, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # Long enough to be stopped in the middle, however fast the machine is.
    longer = ("--set=solver.epochs=6", "--set=solver.keep_checkpoints=9", "--set=data.val_split=")
    learning = ("--set=solver.learn_bn_epochs=1", *SHORT, *longer)
    by_hand = subprocess.run(
        [BY_HAND, *options(root, tmp_path / "unbroken", *learning)],
        cwd=root, env=training.environment() | {"PYTHON": sys.executable, "ROOT_PORT": port},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert by_hand.returncode == 0, by_hand.stderr

    process = start_job(root, tmp_path / "out", *learning)
    wait_for_iteration(process, tmp_path / "out")
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == SAVED, output
    shutil.copytree(tmp_path / "out", tmp_path / "control")
    training.forget_momentum(tmp_path / "control")
    resumed = job(root, tmp_path / "out", *learning, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    expected = training.arrays(tmp_path / "unbroken", "model-0006.params")
    assert training.same(training.arrays(tmp_path / "out", "model-0006.params"), expected)
    assert training.log(tmp_path / "out") == training.log(tmp_path / "unbroken")
    control = job(root, tmp_path / "control", *learning, "--resume")
    assert control.returncode == 0, control.stderr
    assert not training.same(training.arrays(tmp_path / "control", "model-0006.params"), expected)

    # Each worker learnt BN statistics of its own; the model has their mean.
    model = training.arrays(tmp_path / "out", "model-0001.params")
    state = training.arrays(tmp_path / "out", "model-0001.state")
    name = "conv5_2_1x1_increase/bn_moving_mean"
    own = [state[f"worker{rank}.device0:{name}"] for rank in (0, 1)]
    assert not np.array_equal(*own)
    np.testing.assert_allclose(model[f"aux:{name}"], (own[0] + own[1]) / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_asynchronous_workers_train_and_resume(root, tmp_path):
    kind = ("--set=solver.kvstore=dist_async", *SHORT)
    stopped = job(root, tmp_path / "out", *kind, "--time-limit", "0")
    assert stopped.returncode == SAVED, stopped.stderr
    resumed = job(root, tmp_path / "out", *kind, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    losses = [record["loss"] for record in training.log(tmp_path / "out") if "loss" in record]
    assert losses[-1] < losses[0]


# ---- what goes wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    "member, number, kind, expected",
    [
        (("worker", 1), signal.SIGKILL, "dist_sync", "worker 1 was killed by SIGKILL"),
        (("server", 0), signal.SIGKILL, "dist_async", "server 0 was killed by SIGKILL"),
        (("scheduler", 0), signal.SIGKILL, "dist_device_sync", "scheduler 0 was killed by SIGKILL"),
        (("worker", 1), signal.SIGSTOP, "dist_sync", "worker 1 hangs"),
    ],
    ids=["dead worker", "dead server", "dead scheduler", "hung worker"],
)
def test_a_lost_process_ends_the_job(root, tmp_path, member, number, kind, expected):
    process = start_job(root, tmp_path / "out", ENDLESS, f"--set=solver.kvstore={kind}")
    members = wait_for_iteration(process, tmp_path / "out")
    assert len(members) == 4
    members[member].send_signal(number)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2
    assert expected in output
    assert f"{member[0]}-{member[1]}.log" in output
    assert not any(child.is_running() for child in members.values())


@pytest.mark.slow
def test_a_job_that_does_not_get_on_ends_when_patience_does(root, tmp_path):
    hung = job(root, tmp_path / "out", ENDLESS, launcher=("--patience", "0.001"))
    assert hung.returncode == 2
    assert "hangs after 0 iterations; the whole job was ended" in hung.stderr


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ([signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM], SAVED),
        ([signal.SIGINT, signal.SIGINT], "interrupted"),
    ],
    ids=["a batch system's", "Ctrl-C"],
)
def test_only_a_second_ctrl_c_ends_a_job_before_it_has_saved(tmp_path, numbers, expected):
    """The worker is a stand-in that takes two seconds to save."""
    code = (
        "import sys, time; print(1, flush=True); sys.stdin.readline(); time.sleep(2); sys.exit(75)"
    )
    worker = Member("worker", 0, None, [sys.executable, "-c", code], {}, tmp_path / "log")

    def send():
        while not worker.steps:
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        ended = Job([worker], 60).run()
    except KeyboardInterrupt:
        ended = "interrupted"
    sender.join()
    assert ended == expected


def test_a_worker_goes_on_where_its_log_cannot_be_written(capsys):
    """It says more than a pipe holds, after its first iteration: silence would end the job."""
    code = "import sys; print(1, flush=True); sys.stderr.write('a line\\n' * 20000)"
    worker = Member("worker", 1, None, [sys.executable, "-c", code], {}, Path("/dev/full"))
    assert Job([worker], 60).run() == 0
    assert capsys.readouterr().err == (
        "warning: /dev/full: No space left on device; worker 1 goes on\n"
    )
    assert len(worker.last_lines) == 15


@pytest.mark.slow
def test_a_mistake_ends_the_job_with_its_sentence(root, tmp_path):
    wrong = job(root, tmp_path / "out", "--set=solver.batch_size=3", "--cpus", "2")
    assert wrong.returncode == 2
    assert "solver.batch_size 3 cannot be shared equally by 2 devices" in wrong.stderr


@pytest.mark.slow
def test_a_process_ends_when_its_launcher_is_gone():
    port = str(launch._free_port("127.0.0.1"))
    process = subprocess.Popen(
        [sys.executable, *launch.NODE], cwd=training.PROJECT,
        env=training.environment() | {
            "DMLC_ROLE": "scheduler", "DMLC_RANK": "0", "DMLC_PS_ROOT_URI": "127.0.0.1",
            "DMLC_PS_ROOT_PORT": port, "DMLC_NUM_WORKER": "1", "DMLC_NUM_SERVER": "1",
            "DMLC_INTERFACE": "lo", "DMLC_NODE_HOST": "127.0.0.1",
        },
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == BEAT
    process.send_signal(signal.SIGTERM)  # servers wait for the workers' last checkpoint
    assert process.stdout.readline() == BEAT
    process.stdin.close()
    assert process.wait(60) == 1


@pytest.mark.parametrize("value", ["", "3"], ids=["the program's", "the user's"])
def test_other_machines_get_only_a_number_of_threads_that_the_user_set(
    monkeypatch, tmp_path, value
):
    """`ssh` is a stand-in that notes what the other machine is to run, and fails."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$4" >> "$(dirname "$0")/commands"; exit 1\n')
    ssh.chmod(0o755)
    (tmp_path / "hosts.txt").write_text("node-a\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ended = subprocess.run(
        [
            sys.executable, LAUNCH, "-n", "1", "-s", "1", "--hostfile", tmp_path / "hosts.txt",
            "--interface", "lo", "--logs", tmp_path / "logs",
        ],
        env=os.environ | {"OMP_NUM_THREADS": value, "OMP_DYNAMIC": "false"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    for remote in (tmp_path / "commands").read_text().splitlines():
        assert "OMP_DYNAMIC=false" in remote
        assert re.findall(r"OMP_NUM_THREADS=(\S*)", remote) == ([value] if value else [])


# ---- where it listens


def test_loopback_is_chosen_and_needs_no_warning():
    assert launch.find_listener(None, [None]) == launch.Listener("lo", "127.0.0.1", None)


def test_a_warning_where_no_private_interface_is_named(monkeypatch):
    assert "runs code" in launch.find_listener(None, ["127.0.0.1"]).warning

    def addresses():
        kinds = {"private": "10.1.2.3", "public": "8.8.4.4"}
        return {k: [SimpleNamespace(family=socket.AF_INET, address=a)] for k, a in kinds.items()}

    monkeypatch.setattr(psutil, "net_if_addrs", addresses)
    assert launch.find_listener("private", ["a"]) == launch.Listener("private", "10.1.2.3", None)
    assert "8.8.4.4" in launch.find_listener("public", ["a"]).warning
    with pytest.raises(ConfigError, match="expected one of private, public"):
        launch.find_listener("eth9", ["a"])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "names no machine"),
        ("a b\n", "one machine's name per line"),
        ("-oProxy\n", "'-oProxy'"),
    ],
)
def test_a_wrong_hostfile_is_refused(tmp_path, text, expected):
    file = tmp_path / "hosts.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        launch.read_hosts(file)
    with pytest.raises(ConfigError, match="no such file"):
        launch.read_hosts(tmp_path / "missing.txt")
    file.write_bytes(b"\x9d\xff")
    with pytest.raises(ConfigError, match="not a text file"):
        launch.read_hosts(file)
