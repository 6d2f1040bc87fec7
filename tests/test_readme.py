"""The README's commands are real: their flags exist, and the files they name are there."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
SCRIPTS = [command for command in COMMANDS if re.match(r"python \w+\.py", command)]
MODULES = [command for command in COMMANDS if command.startswith("python -m ")]


def _parser(script):
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_parser()


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_parses(command, monkeypatch):
    _, script, *flags = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [script])
    assert _parser(script).parse_args(flags)


@pytest.mark.parametrize("command", MODULES)
def test_every_module_parses(command):
    name, *flags = shlex.split(command)[2:]
    if importlib.util.find_spec(name).submodule_search_locations:
        name += ".__main__"
    assert importlib.import_module(name).make_parser().parse_args(flags)


def test_every_script_has_a_command():
    scripts = {shlex.split(command)[1] for command in SCRIPTS}
    expected = {"prepare_dataset.py", "train.py", "infer.py", "evaluate.py", "export.py"}
    assert scripts == expected


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
