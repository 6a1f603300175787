"""Packaging and the Makefile's set-up, with a stand-in for Python where it would install."""

import ast
import os
import shutil
import subprocess
import sys
from distutils.core import run_setup
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "symbols", "data_iter", "train", "tools")
IMPORT_NAMES = {
    "Pillow": "PIL",
    "PyYAML": "yaml",
    "opencv-python": "cv2",
    "protobuf": "google",
    "pydensecrf2": "pydensecrf",
}


@pytest.fixture(scope="module")
def setup():
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        return run_setup("setup.py", stop_after="init")
    finally:
        os.chdir(here)


def locked(python):
    """Package -> version in requirements.txt for one Python, as pip reads it."""
    versions = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            marker = requirement.marker or Marker("python_version > '3'")
            if marker.evaluate(
                {"python_full_version": python, "python_version": python.rsplit(".", 1)[0]}
            ):
                (specifier,) = requirement.specifier
                assert specifier.operator == "=="
                assert requirement.name not in versions
                versions[requirement.name] = specifier.version
    return versions


@pytest.mark.parametrize("python", ["3.9.18", "3.10.13", "3.11.7"])
def test_the_lock_meets_what_setup_asks_for(setup, python):
    versions = locked(python)
    wanted = [*setup.install_requires, *sum(setup.extras_require.values(), [])]
    for requirement in map(Requirement, wanted):
        version = versions[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement}, locked at {version}"


def test_mxnet_comes_by_extras_only_and_numpy_stays(setup):
    assert "numpy==1.23.5" in setup.install_requires
    assert not [line for line in setup.install_requires if line.startswith("mxnet")]
    assert setup.extras_require["cpu"] == ["mxnet==1.9.1"]
    assert "mxnet-cu112==1.9.1" in setup.extras_require["cu112"]
    assert set(setup.extras_require) == {
        "cpu",
        "cu112",
        "onnxruntime",
        "openvino",
        "serve",
        "hub",
        "dev",
    }


def test_every_package_and_data_file_is_declared(setup):
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(setup.packages) == folders | {"models", "models.camvid"}
    for package in (*PACKAGES, "models"):
        for path in filter(Path.is_file, (ROOT / package).rglob("*")):
            if path.suffix in (".cfg", ".yaml", ".html", ".json", ".j2") or package == "models":
                declared = (
                    ROOT.joinpath(*name.split("."), pattern)
                    for name, patterns in setup.package_data.items()
                    for pattern in patterns
                )
                assert any(path.match(str(pattern)) for pattern in declared), path


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not list its own modules")
def test_every_import_is_declared(setup):
    declared = {
        IMPORT_NAMES.get(name, name).lower()
        for line in (*setup.install_requires, *sum(setup.extras_require.values(), []))
        for name in [Requirement(line).name]
    }
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                foreign = {name.split(".")[0] for name in names} - set(PACKAGES)
                foreign -= sys.stdlib_module_names
                foreign -= {"torch"}  # optional: tools/weights/arrays.py uses it if installed
                assert {name.lower() for name in foreign} <= declared, path


# ---- the Makefile, with a stand-in for Python that only logs its arguments

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && ln -sf "$0" "$3/bin/python" ;;
    *sysconfig*) echo "{include}" ;;
    *"pip install"*) {install} ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """Copy the files that the set-up reads; return a function that runs make there."""
    for name in ("Makefile", "setup.py", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    log = tmp_path / "log"

    def make(*arguments, install="true", path=os.environ["PATH"]):
        python = tmp_path / "python"
        python.write_text(
            FAKE_PYTHON.format(log=log, include=tmp_path / "include", install=install)
        )
        python.chmod(0o755)
        log.write_text("")
        process = subprocess.run(
            [shutil.which("make"), f"PYTHON={python}", *arguments],
            cwd=tmp_path,
            env={"PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return process, log.read_text().splitlines()

    return make


def installs(calls):
    return [call for call in calls if "pip install" in call]


def test_the_second_run_skips_what_is_there(project, tmp_path):
    process, calls = project("test", "BUILD=cpu")
    assert process.returncode == 0, process.stderr
    assert "Installing MXNet (cpu build)" in process.stdout
    (call,) = installs(calls)
    assert "-c requirements.txt" in call
    assert "-e .[cpu," in call
    assert calls[-1] == "-m pytest -n 2 --dist loadfile"

    process, calls = project("test", "BUILD=cpu")
    assert (process.returncode, installs(calls)) == (0, [])
    assert calls[-1] == "-m pytest -n 2 --dist loadfile"

    stamp = tmp_path / ".venv" / "installed-cpu"
    newer = stamp.stat().st_mtime + 5
    os.utime(tmp_path / "requirements.txt", (newer, newer))
    _, calls = project("test", "BUILD=cpu")
    assert len(installs(calls)) == 1


def test_a_change_of_build_removes_the_other_wheel(project):
    project("test", "BUILD=cpu")
    _, calls = project("test", "BUILD=cu112")
    assert "-m pip uninstall -qq --yes mxnet" in calls
    assert "-e .[cu112," in installs(calls)[0]
    _, calls = project("test", "BUILD=cpu")
    assert "-m pip uninstall -qq --yes mxnet-cu112" in calls
    assert "-e .[cpu," in installs(calls)[0]


def test_a_failed_install_is_tried_again(project):
    process, _ = project("test", "BUILD=cpu", install="exit 1")
    assert process.returncode == 2
    process, calls = project("test", "BUILD=cpu")
    assert (process.returncode, len(installs(calls))) == (0, 1)


def bare_path(tmp_path, *extra):
    """A PATH with what make and its shell need, no compiler, no Python and no driver."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in (
        "sh",
        "cp",
        "echo",
        "expand",
        "grep",
        "head",
        "mkdir",
        "rm",
        "sed",
        "touch",
        *extra,
    ):
        if shutil.which(tool):
            (folder / tool).symlink_to(shutil.which(tool))
    return folder


def stopped(process, sentence):
    lines = [line for line in process.stderr.splitlines() if not line.startswith("make: ")]
    return process.returncode == 2 and len(lines) == 1 and sentence in lines[0]


def test_a_missing_compiler_is_one_sentence(project, tmp_path):
    process, calls = project("demo", path=str(bare_path(tmp_path)))
    assert stopped(process, "error: there is no C++ compiler")
    assert installs(calls) == []
    assert not (tmp_path / ".venv").exists()


def test_missing_headers_are_one_sentence(project, tmp_path):
    (tmp_path / "include" / "Python.h").unlink()
    process, _ = project("demo")
    assert stopped(process, "has no header files to build pydensecrf with")


def test_another_python_is_one_sentence(project, tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    process, _ = project("demo", f"PYTHON={old}")
    assert stopped(process, f"MXNet 1.9.1 needs Python 3.9 to 3.11 and {old} is not")
    process, _ = project("demo", "PYTHON=")
    assert stopped(process, "error: MXNet 1.9.1 needs Python 3.9 to 3.11: install one")


@pytest.mark.parametrize(("tool", "says"), [("nvidia-smi", ""), ("ldconfig", "libcuda.so.1")])
def test_a_driver_chooses_the_cuda_build(project, tmp_path, tool, says):
    folder = bare_path(tmp_path)
    assert "BUILD=cpu " in project("help", path=str(folder))[0].stdout
    (folder / tool).write_text(f"#!/bin/sh\necho '\t{says} (libc6) => /usr/lib/{says}'\n")
    (folder / tool).chmod(0o755)
    assert "BUILD=cu112 " in project("help", path=str(folder))[0].stdout


def test_help_lists_the_targets(project):
    text = project("help")[0].stdout
    for target in ("help", "demo", "test", "lint", "format", "check", "bench"):
        assert f"make {target} " in text


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 12, 1)])
def test_pip_with_another_python_gets_one_sentence(version):
    code = f"import sys, setuptools; sys.version_info = {version}; exec(open('setup.py').read())"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    assert process.stderr.startswith("MXNet 1.9.1 needs Python 3.9, 3.10 or 3.11, and this is 3.")
    assert process.stderr.count("\n") == 1
