"""The structure of the code: imports between packages, short files, and the form of commands."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "configs": {"configs"},
    "data_iter": {"data_iter"},
    "symbols": {"symbols"},
    "train": {"configs", "data_iter", "symbols", "train"},
    "tools": {"configs", "data_iter", "symbols", "train", "tools"},
}
# Rooms (sub-packages) of tools/, and the rooms that each may import.
ROOMS = {
    "shared": set(),
    "inference": {"shared"},
    "scoring": {"shared", "inference"},
    "toy": set(),
}
for room in ("submission", "dataset", "weights", "reporting", "studies", "serving"):
    ROOMS[room] = {"shared", "inference", "scoring"}
ROOMS["bench"] = set(ROOMS)
MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
TOPS = [path for path in MODULES if len(path.relative_to(ROOT).parts) == 2]  # directly in a package
COMMANDS = [path for path in TOPS if '__name__ == "__main__"' in path.read_text()]


def name(path):
    return str(path.relative_to(ROOT))


def module(path):
    """``train.trainer`` of ``train/trainer.py``, ``train`` of ``train/__init__.py``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module(path) for path in MODULES}


def imported(path):
    """Modules that a module imports anywhere, also within functions, by their full names.

    ``from train import trainer`` imports ``train.trainer``,
    ``from train import RunError`` imports ``train``.
    """
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), name(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join((*above, *([node.module] if node.module else [])))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in NAMES else source


def circles(graph):
    """Return the modules of ``{module: its imports}`` that import themselves through others."""

    def reached(start):
        seen, open_ends = set(), [start]
        while open_ends:
            new = graph[open_ends.pop()] - seen
            seen |= new
            open_ends += new
        return seen

    return {start for start in graph if start in reached(start)}


def test_every_package_is_looked_at():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert folders == set(MAY_IMPORT)
    assert {"env.py", "make_toy_data.py", "train_model.py"} <= {path.name for path in COMMANDS}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_dependencies_run_one_way(path):
    project = {target.split(".")[0] for target in imported(path)} & {*MAY_IMPORT, "tests"}
    assert project <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", sorted((ROOT / "tools").rglob("*.py")), ids=name)
def test_rooms_keep_their_order_and_commands_import_rooms_only(path):
    inner = path.relative_to(ROOT / "tools").parts
    targets = [target.split(".")[1:] for target in imported(path) if target.startswith("tools.")]
    rooms = {target[0] for target in targets}
    assert rooms <= set(ROOMS), "a room may not import a command, nor a command another"
    if len(inner) > 1:
        assert rooms <= ROOMS[inner[0]] | {inner[0]}


def test_no_module_imports_itself_by_way_of_others():
    graph = {module(path): set(imported(path)) & NAMES for path in MODULES}
    assert graph["train.trainer"] >= {"train.module", "train.health"}  # the graph is not empty
    assert "train.trainer" in circles({**graph, "train.health": {"train.trainer"}})
    assert circles(graph) == set()


def test_the_architecture_names_every_folder_and_file():
    page = (ROOT / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", page, re.MULTILINE))
    inner = [path for path in MODULES if path.name != "__init__.py"]
    for path in inner:
        folder = str(path.relative_to(ROOT).parent)
        assert folder in rows
        if folder != "tools":  # its files are the commands, which the README names
            assert f"`{path.stem}`" in rows[folder], name(path)
    named = {folder: re.findall(r"`([a-z]\w*)`", row) for folder, row in rows.items()}
    there = {(str(path.relative_to(ROOT).parent), path.stem) for path in inner}
    assert {(f, n) for f in {f for f, _ in there} for n in named[f]} <= there


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) < 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno + 1 < 40, f"{node.name} in {name(path)} is long"


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_commands_prepare_the_process_before_they_import_the_project(path):
    tree = ast.parse(path.read_text())
    project = [
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in MAY_IMPORT
    ]
    if path.name == "env.py":  # it also reports where the process cannot be prepared
        assert project == ["train.command", "train"]
    else:
        assert project[0] == "train.runtime"
    main = next(node for node in tree.body if getattr(node, "name", "") == "main")
    assert [ast.unparse(decorator) for decorator in main.decorator_list] == ["command"]


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_help_is_the_docstring(path, capsys):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert module.__doc__.strip() in text
    assert f"python {name(path)}" in text, "the docstring should show how to call it"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_consoles_print_names_as_they_are(path):
    """Rich would read ``[unlabeled]`` as markup and not print it."""
    for node in ast.walk(ast.parse(path.read_text(), name(path))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Console":
            markup = [word.value for word in node.keywords if word.arg == "markup"]
            assert [getattr(value, "value", None) for value in markup] == [False]


def test_light_modules_do_not_load_mxnet():
    code = (
        "import sys, configs.loader, configs.datasets, data_iter.transforms, data_iter.image_files;"
        "import train.runtime, train.atomic, tools.env;"
        "sys.exit('mxnet' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
