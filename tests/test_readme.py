"""README and docs/ match the project: the commands, options, keys and files they name exist."""

import inspect
import re
from pathlib import Path

import pytest

from configs.schema import SECTIONS
from tools.shared import options

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")  # continued lines joined
COMMANDS = sorted(set(re.findall(r"python ((?:train|tools)/\w+\.py)([^\n#`]*)", TEXT)))


@pytest.mark.parametrize(("file", "arguments"), COMMANDS)
def test_a_command_exists_and_knows_its_options(file, arguments):
    source = (PROJECT / file).read_text()
    shared = re.findall(r"^    (add_\w+)\(", source, re.MULTILINE)  # options that commands share
    while shared:
        body = inspect.getsource(getattr(options, shared.pop()))
        source += body
        shared += re.findall(r"^    (add_\w+)\(", body, re.MULTILINE)
    if file == "train/launch.py":
        arguments = arguments.split(" -- ")[0]  # options after -- are train_model.py's
    for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", arguments):
        assert option == "--help" or f'"{option}"' in source, option


def test_every_command_is_named():
    commands = [*(PROJECT / "tools").glob("*.py"), *(PROJECT / "train").glob("*.py")]
    for file in commands:
        if '__name__ == "__main__"' in file.read_text():
            assert f"python {file.relative_to(PROJECT)}" in TEXT, file.name


def test_every_experiment_has_a_row():
    names = {file.stem for file in (PROJECT / "configs").glob("*.cfg")}
    rows = names - {"base", "toy", "camvid", "own"}
    assert len(rows) > 20
    assert rows <= set(re.findall(r"`(\w+)`", README))


def test_every_key_that_it_sets_exists():
    keys = set(
        re.findall(r"\b((?:experiment|network|data|solver)\.(?!(?:py|md)\b)[a-z_]+)\b", TEXT)
    )
    assert keys
    for key in keys:
        section, name = key.split(".")
        assert name in SECTIONS[section].__dataclass_fields__, key


def test_each_set_has_one_key():
    assert not re.findall(r"--set[ =]\S+ +\w+\.\w+=", TEXT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_is_a_door_to_every_page():
    assert len(README.splitlines()) <= 150
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in README, page.name


def test_prose_is_wrapped():
    for page in PAGES:
        for line in page.read_text().splitlines():
            assert len(line) <= 100 or line.startswith(("|", "    ")), f"{page.name}: {line}"
