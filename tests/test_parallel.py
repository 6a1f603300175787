"""Work in several processes: none of them outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import time
from tools.shared.parallel import in_processes
if __name__ == "__main__":
    print("ready", flush=True)
    list(in_processes(time.sleep, [600.0] * 4, "sleeping", 2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_command(tmp_path, number):
    (tmp_path / "sleep.py").write_text(CODE)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleep.py")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    process.stdout.readline()
    family = []
    for _ in range(200):
        family = psutil.Process(process.pid).children(recursive=True)
        if len(family) >= 4:  # a fork server, a resource tracker and two workers
            break
        time.sleep(0.05)
    time.sleep(0.5)  # the workers' first lines
    if number == signal.SIGINT:  # a terminal sends Ctrl-C to all of them
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=20)
    for child in alive:
        child.kill()
    assert len(family) >= 4 and not alive


@pytest.mark.parametrize(("spare", "works"), [(1, True), (0, False)])
def test_too_few_open_files_are_said_before_a_worker_starts(tmp_path, spare, works):
    (tmp_path / "count.py").write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tools.shared.parallel import in_processes\n"
        "if __name__ == '__main__':\n"
        "    limit = len([*Path('/proc/self/fd').iterdir()]) + 14 + 2 * 3 - 1 + int(sys.argv[1])\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "    print(sorted(r for _, r in in_processes(abs, [-1, 2, -3, 4], 'counting', 3)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "count.py"), str(spare)],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if works:
        assert (done.stdout, done.stderr) == ("[1, 2, 3, 4]\n", "")
    else:
        last = done.stderr.splitlines()[-1]
        assert "3 worker processes would need" in last and "(ulimit -n)" in last
        assert done.stderr.count("Traceback") == 1  # the script does not catch the error
