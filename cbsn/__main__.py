"""Runs the commands of the package: `cbsn COMMAND`, or `python -m cbsn COMMAND`."""

import difflib
import importlib
import sys

import cbsn
from cbsn.cli import COMMANDS
from cbsn.cli.flags import run

# These do not need TensorFlow, which takes seconds to start, or import it themselves if needed.
_WITHOUT_TENSORFLOW = (
    *("prepare", "noise", "client", "launch", "demo"),
    *("models", "completion", "app", "train"),
)


def run_command(name: str) -> None:
    """Runs a command with the process's flags, and exits with its status."""
    command = importlib.import_module(f"cbsn.cli.{name}")
    run(command.main, command.make_parser(), tensorflow=name not in _WITHOUT_TENSORFLOW)


def main() -> None:
    """Runs the command that the first argument names."""
    if sys.argv[1:2] == ["help"] and len(sys.argv) > 2:
        sys.argv[1:] = [sys.argv[2], "--help"]
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "--help-all", "help"):
        print(_help())
    elif name in ("-V", "--version", "version"):
        print(f"cbsn {cbsn.__version__}")
    elif name in COMMANDS:
        sys.argv[:2] = [f"cbsn {name}"]  # what --help and errors call the command
        run_command(name)
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        advice = f"did you mean cbsn {near[0]}?" if near else "see cbsn --help"
        sys.stderr.write(f"error: there is no command {name!r}; {advice}\n")
        sys.exit(2)


def _help() -> str:
    """Returns the help: all commands, and where to begin."""
    lines = [f"  {name:<12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cbsn COMMAND [flags]",
            "",
            "Denoises pictures without clean ones to learn from.",
            "",
            *lines,
            f"  {'--version':<12}prints the version",
            "",
            "Begin with: cbsn denoise photos",
            "cbsn COMMAND --help shows a command's common flags, --help-all all of them.",
        ]
    )


if __name__ == "__main__":
    main()
