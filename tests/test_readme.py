"""The README's commands are real: their flags exist, and the files they name are there."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
SCRIPTS = {
    "train.py": "cbsn.cli.train",
    "infer.py": "cbsn.cli.denoise",
    "evaluate.py": "cbsn.cli.evaluate",
    "export.py": "cbsn.cli.export",
    "prepare_dataset.py": "cbsn.cli.prepare",
}
PYTHON = [command for command in COMMANDS if re.match(r"python (\w+\.py|-m )", command)]


@pytest.mark.parametrize("command", PYTHON)
def test_every_command_parses(command):
    _, name, *flags = shlex.split(command)
    if name == "-m":
        name, *flags = flags
        if name == "cbsn":
            name, *flags = flags
            name = f"cbsn.cli.{name}"
        elif importlib.util.find_spec(name).submodule_search_locations:
            name += ".__main__"
    assert importlib.import_module(SCRIPTS.get(name, name)).make_parser().parse_args(flags)


def test_every_script_has_a_command():
    named = {shlex.split(command)[1] for command in PYTHON}
    assert named >= SCRIPTS.keys()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in makefile, command


def test_named_files_exist():
    tree = re.search(r"```\n(train\.py.*?)```", README, re.DOTALL)[1]
    for line in tree.splitlines():
        for path in re.findall(r"[\w/]+\.py|\w+(?:/\w+)*/(?=\s)", line.split("   ")[0] + " "):
            assert (ROOT / path).exists(), path
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists(), picture
