"""Every number that a command takes is checked before any work is done."""

import argparse
import importlib
from pathlib import Path

import pytest
import tensorflow as tf

tf.config.list_physical_devices()  # what is said when it starts is not the commands'


# These names do not exist, which would be the next error.
COMMANDS = {
    "evaluate": ["--modelpath", "nowhere", "--noisy", "nowhere", "--clean", "nowhere"],
    "export": ["--modelpath", "nowhere", "--out", "out"],
    "denoise": ["--modelpath", "nowhere", "--imagepath", "nowhere", "--savepath", "out"],
    "train": ["--name", "run", "--dataset", "nowhere"],
    "prepare": ["--dataset", "nowhere"],
    "noise": ["nowhere"],
    "adapt": ["nowhere", "--out", "out"],
    "submit": [*("sidd", "--modelpath", "nowhere", "--source", "nowhere", "--out", "out")],
    "client": ["nowhere", "--rest", "--url", "localhost:1", "--savepath", "out"],
    "tests.serving.server": ["--model_base_path", "nowhere"],
    "beam": ["--modelpath", "nowhere", "--input", "nowhere", "--output", "out"],
    "benchmarks": ["nowhere"],
    "app": ["--modelpath", "nowhere", "--no-browser", "--port", "0"],
}

TEXTS = {
    "--tile": ["auto"],
    "--data_range": ["dtype"],
    "--baseline_sigma": ["best"],
    "--noise_sigma": [],
    "--noise_peak": [],
    "--batches": [],
    "--pictures": [],
    "--adapt": [],
}
"""Flags that are numbers, but also take other things: argparse has no type for them."""

OTHER_NAMES = {"--adapt": ["minutes"], "--minutes": ["minutes"]}
"""What the message calls a flag, where that is not its name."""

NO_NUMBERS = ["nan", "inf", "-inf", "-1", "1" + "0" * 30, "9" * 5000, "", "x"]


def _flags(command):
    """The flags of a command that take numbers."""
    parser = importlib.import_module(_module(command)).make_parser()
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers.append(action.choices[COMMANDS[command][0]])
    return sorted(
        {
            action.option_strings[0]
            for parser in parsers
            for action in parser._actions
            if action.option_strings
            and (
                action.option_strings[0] in TEXTS
                or (action.type and action.type not in (Path, str))
            )
        }
    )


def _module(command):
    return {"benchmarks": "benchmarks.__main__"}.get(
        command, command if "." in command else f"cbsn.cli.{command}"
    )


CASES = [(command, flag) for command in COMMANDS for flag in _flags(command)]


def test_there_are_such_flags():
    found = {flag for _, flag in CASES}
    assert {"--images", "--version", "--port", "--repeats", "--seed", *TEXTS} <= found


@pytest.mark.parametrize(("command", "flag"), CASES, ids=lambda value: value)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value[:6]))
def test_what_is_no_number_in_range_is_one_line(run_here, tmp_path, command, flag, value):
    if (flag, value) == ("--white", "1" + "0" * 30):
        pytest.skip("floats may be of any unit")
    run = run_here(command, *COMMANDS[command], f"{flag}={value}")
    error = run.stderr.splitlines()
    assert (run.returncode, len(error)) == (2, 1), run.stderr
    assert error[0].startswith("error: ")
    assert any(name in error[0] for name in (flag.lstrip("-"), *OTHER_NAMES.get(flag, ())))
    assert "nowhere" not in error[0].replace(" ".join(COMMANDS[command]), "")
    assert [*tmp_path.iterdir()] == []
