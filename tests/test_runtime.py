"""Threads, exit codes, wheels, CUDA libraries and GPUs, in real processes where it matters."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ConfigError
from data_iter.errors import DataError
from train import cuda, machine, runtime
from train.atomic import atomic_write
from train.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "c++", "g++", "clang"))), "cc")


def run(code, *prefix, flags=(), path=(), **environment):
    """Run Python code in a process of its own, without this one's OMP_NUM_THREADS."""
    inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **environment}
    return subprocess.run(
        [*prefix, sys.executable, *flags, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# ---- threads

SHOW_THREADS = (
    "import sys, os, train.runtime; assert 'mxnet' not in sys.modules;"
    "print(os.environ['OMP_NUM_THREADS'])"
)


def test_all_allowed_cores_are_used():
    assert run(SHOW_THREADS).stdout.strip() == str(machine.allowed_cores())


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_affinity_is_respected():
    core = str(min(os.sched_getaffinity(0)))
    assert run(SHOW_THREADS, "taskset", "-c", core).stdout == "1\n"


def test_the_users_thread_count_wins():
    assert run(SHOW_THREADS, OMP_NUM_THREADS="7").stdout == "7\n"


@pytest.mark.parametrize(("value", "threads"), [("", None), (" ", None), ("3,2", 3)])
def test_an_empty_thread_count_is_none_and_of_a_list_the_first_counts(monkeypatch, value, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert machine.compute_threads() == (threads or machine.allowed_cores())
    if threads is None:
        assert run(SHOW_THREADS, OMP_NUM_THREADS=value).stdout.strip() == str(
            machine.allowed_cores()
        )


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5"])
def test_a_thread_count_that_is_none_is_one_sentence(value):
    assert_one_error(run(SHOW_THREADS, OMP_NUM_THREADS=value), f"OMP_NUM_THREADS={value}: expected")


@pytest.mark.parametrize("value", ["100MB", "2G", "many", "", "0", "-1", "1e9", " 7", "9" * 20])
def test_a_limit_of_pixels_that_is_no_number_is_one_sentence(value):
    """OpenCV aborts with some of these, and takes others in its own way."""
    name = "OPENCV_IO_MAX_IMAGE_PIXELS"
    done = run("import train.runtime, cv2, data_iter.image_files", **{name: value})
    assert_one_error(done, f"{name}={value}: expected a number of pixels, without a unit")


@pytest.mark.parametrize("value", ["80", "1" + "0" * 18])
def test_a_limit_of_pixels_is_taken(value):
    code = "import train.runtime, cv2; from data_iter import image_files as i; print(i.MAX_PIXELS)"
    done = run(code, OPENCV_IO_MAX_IMAGE_PIXELS=value)
    assert done.stdout == f"{value}\n", done.stderr


def test_other_backends_and_the_data_threads_keep_to_the_limits(monkeypatch, tmp_path):
    import training
    from tiny_run import make_run

    from configs.datasets import load_dataset
    from configs.loader import load_config
    from tools.inference.predictor import load
    from train import data

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # OpenVINO takes no more than there are cores
    path = make_run(tmp_path / "run").path
    session = load(path, backend="onnxruntime").segmenter._session
    assert session.get_session_options().intra_op_num_threads == 1
    compiled = load(path, backend="openvino").segmenter._model
    assert int(compiled.get_property("INFERENCE_NUM_THREADS")) == 1

    monkeypatch.setattr(data, "allowed_cores", lambda: 5)  # for example the quota of a cgroup
    root = training.write_frames(tmp_path / "frames", train=4)
    config = load_config(root / "tiny.cfg", ["data.threads=0"])
    batches = data.open_batches(config, load_dataset("camvid"), root)
    assert batches._pool._max_workers == 5
    batches.close()


def cgroup(tmp_path, membership, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "membership").write_text(membership + "\n")
    return machine.allowed_cores(tmp_path, tmp_path / "membership")


V1 = "11:memory:/job\n4:cpu,cpuacct:/docker/job\n0::/"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/", {"cpu.max": "6400000 100000"}, 16),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "250000 50000"}, 3),
        ("0::/a/b", {"a/cpu.max": "max 100000", "elsewhere/cpu.max": "100000 100000"}, 16),
        (V1, {"cpu,cpuacct/docker/job/cpu.cfs_quota_us": "-1"}, 16),
        (
            V1,
            {
                "cpu,cpuacct/docker/job/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/job/cpu.cfs_period_us": "50000",
            },
            5,
        ),
        # In a container, the host's path is not there and the mount point is the container's own.
        (
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "70000", "cpu,cpuacct/cpu.cfs_period_us": "10000"},
            7,
        ),
        (V1, {"memory/job/cpu.max": "100000 100000"}, 16),
    ],
)
def test_cgroup_quotas(tmp_path, monkeypatch, membership, files, cores):
    """The tightest quota of the process's cgroups limits the cores, rounded up."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert cgroup(tmp_path, membership, files) == cores


def test_no_cgroups_at_all(tmp_path):
    """Then the affinity alone counts."""
    assert machine.allowed_cores(tmp_path, tmp_path / "none") == len(os.sched_getaffinity(0))


# ---- exit codes


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConfigError("base.cfg: no such key"), "base.cfg: no such key"),
        (DataError("a.png: truncated"), "a.png: truncated"),
        (RunError("run: no parameters"), "run: no parameters"),
        (PermissionError(13, "Permission denied", "out/x.png"), "out/x.png: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(capsys, error, sentence):
    def main(argv=None):
        raise error

    assert runtime.command(main)([]) == 2
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


def test_a_network_that_cannot_be_built_is_a_users_mistake_too(capsys):
    from symbols import NetworkError

    @runtime.command
    def main(argv=None):
        raise NetworkError("depth", 51, "50")

    assert main() == 2
    assert capsys.readouterr().err == "error: depth 51: expected 50\n"


def test_a_bug_keeps_its_traceback():
    @runtime.command
    def main(argv=None):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main()


def test_what_main_returns_and_gets_is_passed_on():
    assert runtime.command(lambda argv: 3 if argv == ["-x"] else 4)(["-x"]) == 3


def test_ctrl_c_gives_130():
    code = """
import sys, time
from train.runtime import command
@command
def main(argv=None):
    print("started", flush=True)
    time.sleep(30)
sys.exit(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, b"interrupted\n")


# ---- Python and MXNet


@pytest.mark.parametrize("python", [(3, 8), (3, 12), (4, 0)])
def test_another_python_is_refused(python):
    with pytest.raises(
        RunError, match=rf"this is Python {python[0]}\.{python[1]}, .*3\.9 to 3\.11"
    ):
        machine.check_python(python)


@pytest.mark.parametrize("python", [(3, 9), (3, 10), (3, 11)])
def test_three_pythons_are_accepted(python):
    machine.check_python(python)


def distribution(folder, name, version="1.9.1"):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    )


def assert_one_error(process, *parts):
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    for part in parts:
        assert part in process.stderr


def test_both_wheels_are_refused(tmp_path):
    distribution(tmp_path, "mxnet")
    distribution(tmp_path, "mxnet_cu112")
    process = run("import train.runtime", path=[tmp_path])
    assert_one_error(process, "both mxnet and mxnet-cu112", "pip uninstall -y mxnet mxnet-cu112")


def test_no_mxnet_is_refused():
    process = run("import train.runtime", flags=["-S"])  # without site-packages
    assert_one_error(process, "MXNet is not installed", "pip install -e '.[cpu]'")


def test_an_mxnet_built_from_source_is_accepted(tmp_path):
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").touch()
    code = "import train.runtime; print(train.runtime.machine.mxnet_wheel())"
    process = run(code, flags=["-S"], path=[tmp_path])
    assert process.stdout == "None\n"


# ---- CUDA, with stand-ins for its libraries


def compile_library(source, target, *links):
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", f"-Wl,-soname,{target.name}", "-o", target, source, *links],
        check=True,
    )
    return target


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with a stand-in for the NVIDIA driver library."""
    folder = tmp_path_factory.mktemp("driver")
    compile_library(ROOT / "tests" / "fake_cuda.c", folder / "libcuda.so.1")
    return folder


@pytest.fixture(scope="module")
def cuda_site(tmp_path_factory):
    """A site-packages with stand-ins for mxnet-cu112 and for the CUDA 11 packages."""
    tmp_path = tmp_path_factory.mktemp("cuda")
    site = tmp_path / "site"
    distribution(site, "mxnet_cu112")
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    made = {}
    for package, name in cuda.CUDA_LIBRARIES:
        folder = site / "nvidia" / package / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        needs = [made["libcublasLt.so.11"]] if name == "libcublas.so.11" else []
        # Without as-needed the dependency is recorded though no symbol is used.
        links = ["-Wl,--no-as-needed", *needs]
        made[name] = compile_library(empty, folder / name, *links)
    (site / "mxnet").mkdir()
    compile_library(empty, site / "mxnet" / "libmxnet.so", "-Wl,--no-as-needed", *made.values())
    (site / "mxnet" / "__init__.py").write_text(
        "import ctypes, pathlib\n"
        "ctypes.CDLL(str(pathlib.Path(__file__).with_name('libmxnet.so')))\n"
    )
    return site


def test_cuda_libraries_from_pip_are_found_without_a_loader_path(cuda_site, driver):
    options = {"flags": ["-S"], "path": [cuda_site], "LD_LIBRARY_PATH": str(driver)}
    assert "cannot open shared object" in run("import mxnet", **options).stderr
    process = run("import train.runtime, mxnet; print('loaded')", **options)
    assert (process.stdout, process.stderr) == ("loaded\n", "")


def test_a_missing_cuda_library_is_named(cuda_site, driver, tmp_path):
    site = shutil.copytree(cuda_site, tmp_path / "site")
    (site / "nvidia" / "cudnn" / "lib" / "libcudnn.so.8").unlink()
    process = run("import train.runtime", flags=["-S"], path=[site], LD_LIBRARY_PATH=str(driver))
    assert_one_error(process, "libcudnn.so.8", "pip install -e '.[cu112]'")


@pytest.mark.skipif(bool(cuda.gpus()), reason="there is a driver")
def test_a_missing_driver_is_named(cuda_site):
    process = run("import train.runtime", flags=["-S"], path=[cuda_site])
    assert_one_error(process, "libcuda.so.1", "NVIDIA driver is missing", "'.[cpu]'")


def test_gpus_come_from_the_driver(driver):
    code = "from train import cuda; print(*cuda.gpus(), sep='\\n')"
    process = run(code, LD_LIBRARY_PATH=str(driver), FAKE_GPUS="75,90")
    assert process.stdout.splitlines() == [
        "GPU 0 (Fake 0, compute capability 7.5)",
        "GPU 1 (Fake 1, compute capability 9.0)",
    ]
    assert run(code, LD_LIBRARY_PATH=str(driver), FAKE_GPUS="").stdout == "\n"


@pytest.mark.parametrize(
    ("capability", "usable"),
    [((3, 7), False), ((5, 0), True), ((8, 6), True), ((8, 9), True), ((9, 0), False)],
)
def test_capabilities_that_mxnet_holds_code_for(capability, usable):
    assert cuda.Gpu(0, "some", capability).usable is usable


@pytest.fixture
def four_gpus(monkeypatch):
    """Stand in for the CUDA build on a machine with GPUs of four generations."""
    import mxnet as mx

    class Features:
        def is_enabled(self, name):
            return name == "CUDA"

    capabilities = [(7, 5), (9, 0), (3, 7), (8, 9)]
    found = [cuda.Gpu(i, f"Card {i}", c) for i, c in enumerate(capabilities)]
    monkeypatch.setattr(mx.runtime, "Features", Features)
    monkeypatch.setattr(cuda, "gpus", lambda: found)
    return mx


def test_default_is_every_usable_gpu(four_gpus, caplog):
    assert runtime.contexts() == [four_gpus.gpu(0), four_gpus.gpu(3)]
    assert [record.args[0].split(":")[0] for record in caplog.records] == [
        "GPU 1 (Card 1, compute capability 9.0)",
        "GPU 2 (Card 2, compute capability 3.7)",
    ]


def test_gpus_are_given_in_the_order_asked_for(four_gpus):
    assert runtime.contexts("3,0") == [four_gpus.gpu(3), four_gpus.gpu(0)]


def test_a_gpu_too_new_is_refused_with_the_way_out(four_gpus):
    with pytest.raises(RunError, match=r"GPU 1 \(Card 1, .* 9\.0\): .* 5\.0 to 8\.9 only.*ONNX"):
        runtime.contexts("0,1")


def test_a_gpu_that_is_not_there_is_refused(four_gpus):
    with pytest.raises(RunError, match=r"no GPU 4 \(GPUs found: 0, 1, 2, 3\)"):
        runtime.contexts("4")


@pytest.mark.parametrize("text", ["", "0,", "x", "0,0", "-1x", "0;1"])
def test_malformed_gpu_lists(four_gpus, text):
    """They are refused with what is expected."""
    with pytest.raises(ConfigError, match="--gpus: expected different numbers"):
        runtime.contexts(text)


def test_without_usable_gpus_the_cpu_serves(four_gpus, monkeypatch):
    monkeypatch.setattr(cuda, "gpus", lambda: [cuda.Gpu(0, "H100", (9, 0))])
    assert runtime.contexts() == [four_gpus.cpu()]


@pytest.mark.parametrize(
    ("threads", "cpus", "each"), [("4", 2, "2"), ("2", 4, "1"), ("6,2", 1, "6")]
)
def test_cpu_contexts_share_the_threads(monkeypatch, threads, cpus, each):
    import mxnet as mx

    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert runtime.contexts(cpus=cpus) == [mx.cpu(number) for number in range(cpus)]
    assert os.environ["OMP_NUM_THREADS"] == each
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        runtime.contexts(cpus=0)


def test_the_cpu_build_says_how_to_get_gpus():
    import mxnet as mx

    if mx.runtime.Features().is_enabled("CUDA"):
        pytest.skip("this is the CUDA build")
    assert runtime.contexts() == [mx.cpu()]
    with pytest.raises(RunError, match=r"CPU build.*pip install -e '\.\[cu112\]'"):
        runtime.contexts("0")


@pytest.mark.gpu
def test_a_real_gpu_computes():
    import mxnet as mx

    usable = [gpu for gpu in cuda.gpus() if gpu.usable]
    if not usable or not mx.runtime.Features().is_enabled("CUDA"):
        pytest.skip("needs mxnet-cu112 and a GPU that it runs on")
    device = runtime.contexts(str(usable[0].index))[0]
    assert (mx.nd.ones((3, 5), ctx=device) * 2).sum().asscalar() == 30


# ---- files


def test_a_file_appears_whole_and_readable_by_others(tmp_path):
    mask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a.png") as temporary:
            temporary.write_bytes(b"half")
            assert temporary.suffix == ".png"
            assert not (tmp_path / "a.png").exists()
    finally:
        os.umask(mask)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"half"
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with atomic_write(target) as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_errors_name_the_file_that_the_user_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as below, atomic_write(tmp_path / "file" / "a.txt"):
        pass
    assert below.value.filename == str(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotADirectoryError) as below, atomic_write("file/a.txt"):
        pass
    assert below.value.filename == "file"
    (tmp_path / "file").unlink()

    def fill_the_disk():
        with atomic_write(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as full:
        fill_the_disk()
    assert full.value.filename == str(tmp_path / "a.txt")

    def read_what_is_not_there():
        with atomic_write(tmp_path / "a.txt"):
            (tmp_path / "input").read_text()

    with pytest.raises(FileNotFoundError) as other:
        read_what_is_not_there()
    assert other.value.filename == str(tmp_path / "input")
    assert list(tmp_path.iterdir()) == []
