"""What messages advise works in the command that prints them.

A message is any text of several words in the code. The flags that it names must be flags of all
commands that import its module, or it must say of which command they are: "the --out of
cbsn prepare". A flag that was given, as in "Received: --tile -1", is one of that command.
"""

import argparse
import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbsn.cli import COMMANDS as NAMES

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = ("train.py", "infer.py", "evaluate.py", "export.py", "prepare_dataset.py")
COMMANDS = {
    "benchmarks": "benchmarks/__main__.py",
    "benchmarks.quality": "benchmarks/quality.py",
    **{f"cbsn {name}": f"cbsn/cli/{name}.py" for name in NAMES},
}

PRINTED_BY = {
    # These import the module for something else than what the message is about.
    "benchmarks": {"benchmarks"},  # its suites are imported by name
    "benchmarks/quality.py": {"benchmarks.quality"},
    "cbsn/images/image_files.py": {"cbsn denoise", "cbsn client", "cbsn beam"},  # writing
    "cbsn/__main__.py": {*COMMANDS},
    "cbsn/cli/denoise.py": {"cbsn denoise"},  # cbsn adapt shares --model and --quality
    "cbsn/data/pairs.py": {"cbsn train"},
    "cbsn/data/pipeline.py": {"cbsn train"},
    "cbsn/data/stack_pairs.py": {"cbsn train", "cbsn evaluate"},
    "cbsn/data/stack_repair.py": {"cbsn denoise"},
    "cbsn/evaluation/conventions.py": {"cbsn evaluate"},
    "cbsn/evaluation/diagnosis.py": {"cbsn evaluate", "cbsn noise"},
    "cbsn/evaluation/noise_report.py": {"cbsn noise"},
    "cbsn/evaluation/stack_noise.py": {"cbsn noise"},
    "cbsn/inference/folder.py": {"cbsn denoise"},
    "cbsn/inference/forecast.py": {"cbsn denoise"},
    "cbsn/inference/outputs.py": {"cbsn denoise", "cbsn client", "cbsn beam"},
    "cbsn/images/stacks": {
        *("cbsn denoise", "cbsn train", "cbsn prepare", "cbsn evaluate", "cbsn noise", "cbsn beam"),
        "cbsn adapt",
    },
    "cbsn/images/stacks/dropped.py": {"cbsn denoise"},
    "cbsn/images/stacks/ome_xml.py": {"cbsn denoise"},
    "cbsn/images/stacks/writing.py": {"cbsn denoise", "cbsn beam"},
    "cbsn/inference/stack_options.py": {"cbsn denoise", "cbsn beam"},
    "cbsn/inference/stacks.py": {"cbsn denoise", "cbsn beam"},
    "cbsn/inference/uncertainty.py": {"cbsn denoise"},
    "cbsn/inference/volumes.py": {"cbsn denoise", "cbsn evaluate", "cbsn noise", "cbsn beam"},
    "cbsn/models/loading.py": {"cbsn train"},  # of --init
    "cbsn/training/distribution.py": {"cbsn train"},
    "cbsn/client": {"cbsn client"},
    "cbsn/objectives/noise2noise.py": {"cbsn train"},
    "cbsn/objectives/probabilistic_noise2void.py": {"cbsn train"},
    "cbsn/recipes.py": {"cbsn train"},
    "cbsn/training/dataset.py": {"cbsn train"},
    "cbsn/training/options.py": {"cbsn train"},
    "cbsn/training/distillation.py": {"cbsn train"},
    "cbsn/training/teachers.py": {"cbsn train"},
    "data_prep": {"cbsn train", "cbsn prepare"},
    "cbsn/inference/engines": {
        *("cbsn denoise", "cbsn evaluate", "cbsn noise", "cbsn submit", "cbsn beam"),
    },
    # It was said that the network refines, in those that have the flag.
    "cbsn/inference/passes.py": {
        *("cbsn denoise", "cbsn evaluate", "cbsn export", "cbsn noise", "cbsn submit", "cbsn beam"),
    },
}
"""Commands that print the messages of a module, or a folder, where not all do that import it."""

_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_COMMAND = re.compile(r"python -m ([\w.]*\w)|(?<![\w/])(cbsn [a-z]+)")


def _messages(source: str) -> Iterator[str]:
    """Texts of several words, but for docstrings and for what is said of flags themselves."""
    tree = ast.parse(source)
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            seen.add(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith("add") or "arser" in name:
                seen.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in seen:
            continue
        if isinstance(node, ast.JoinedStr):
            seen.update(node.values)
            parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if " " in text:
            yield text


def _commands(text: str) -> set[str]:
    """The commands that a text names."""
    return {a or b for a, b in _COMMAND.findall(text)}


def _was_given(flag: str, text: str) -> bool:
    """Whether the message is about a flag that the user has given."""
    end = r"(?![\w-])"
    return re.search(rf"^{flag}{end}|Received:.*{flag}{end}", text, re.DOTALL) is not None


def _wrong_flags(path: str, source: str) -> list[str]:
    """What the messages of a module name and a command that prints them does not have."""
    # What `benchmarks.quality` does in the way of other commands is said in their words.
    others = COMMANDS.keys() - {"benchmarks.quality"}
    printed_by = {name for name in others if path in _imported_by(name)}
    for place, commands in PRINTED_BY.items():
        if path == place or path.startswith(f"{place}/"):
            printed_by = commands
    wrong = []
    for text in _messages(source):
        said = _commands(text) & COMMANDS.keys()
        for flag in {*_FLAG.findall(text)}:
            if _was_given(flag, text) or any(flag in _flags(name) for name in said):
                continue
            lacking = sorted(name for name in printed_by if flag not in _flags(name))
            if lacking or not printed_by:
                wrong.append(f"{path}: {flag}, which {lacking or 'no command'} lacks, in {text!r}")
    return wrong


@functools.cache
def _flags(command: str) -> set[str]:
    """All flags of a command."""
    name = COMMANDS[command].removesuffix(".py").replace("/", ".")
    parser = importlib.import_module(name).make_parser()
    parsers, flags = [parser], {"--verbosity"}
    while parsers:
        for action in parsers.pop()._actions:
            flags.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return flags


@functools.cache
def _imported_by(command: str) -> set[str]:
    """All modules that a command may import, by their paths."""
    found, todo = set(), [COMMANDS[command]]
    while todo:
        path = todo.pop()
        # `cbsn/__init__.py` loads the public names only when they are asked for.
        if path not in found and path != "cbsn/__init__.py":
            found.add(path)
            todo += _imports(path)
    return found


@functools.cache
def _imports(path: str) -> list[str]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{each.name}" for each in node.names)})
    places = [name.replace(".", "/") for name in names]
    files = [f"{place}{end}" for place in places for end in (".py", "/__init__.py")]
    return [file for file in files if (ROOT / file).is_file()]


def _sources() -> list[str]:
    found = [
        *ROOT.glob("cbsn/**/*.py"),
        *ROOT.glob("data_prep/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]
    return sorted([*SCRIPTS, *(path.relative_to(ROOT).as_posix() for path in found)])


@pytest.mark.parametrize("path", _sources())
def test_flags_are_those_of_the_commands_that_print_them(path):
    assert _wrong_flags(path, (ROOT / path).read_text("utf-8")) == []


@pytest.mark.parametrize("path", _sources())
def test_commands_that_are_named_are_there(path):
    for text in _messages((ROOT / path).read_text("utf-8")):
        assert not re.search("|".join(SCRIPTS), text), "messages name the commands, not the scripts"
        assert _commands(text) <= COMMANDS.keys(), text


def test_exceptions_are_needed():
    for place, commands in PRINTED_BY.items():
        assert (ROOT / place).exists()
        assert commands <= COMMANDS.keys()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("Take --no-resume to start over.", None),
        ("Start over with --force.", "--force"),
        ("Start over with cbsn prepare --force, which sets it aside.", None),
        ("Start over with the --force of cbsn prepare.", None),
        ("Start over with cbsn denoise --force.", "--force"),
        ("--force is not for that. Received: --force", None),
        ("--lr must be above 0.", None),
        ("Take a smaller value of --lrate.", "--lrate"),
    ],
)
def test_wrong_advice_is_found(text, flag):
    """As in a message of `cbsn train`."""
    wrong = _wrong_flags("cbsn/cli/train.py", f"raise ConfigError({text!r})")
    assert [each.split(",")[0] for each in wrong] == (
        [f"cbsn/cli/train.py: {flag}"] if flag else []
    )
