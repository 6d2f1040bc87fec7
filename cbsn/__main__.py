"""Runs the commands of the package: `python -m cbsn COMMAND`."""

import importlib
import sys

from cbsn.cli.flags import run

COMMANDS = {
    "train": "trains a denoiser from noisy pictures (train.py)",
    "denoise": "denoises pictures (infer.py)",
    "prepare": "cuts pictures into the patches that training reads (prepare_dataset.py)",
    "evaluate": "scores denoisers (evaluate.py)",
    "export": "exports a model for servers and other runtimes (export.py)",
    "noise": "reports the noise of pictures",
    "submit": "makes submissions to the SIDD and DND benchmarks",
    "beam": "denoises in an Apache Beam pipeline",
    "client": "sends pictures to a model server",
    "launch": "starts several workers of one training on this machine",
    "ship": "writes a trained model with weights of half the size",
    "demo": "makes noisy pictures to try the others on",
}

# These do not need TensorFlow, which takes seconds to start, or import it themselves if needed.
_WITHOUT_TENSORFLOW = ("prepare", "noise", "client", "launch", "demo")


def run_command(name: str) -> None:
    """Runs a command with the process's flags, and exits with its status."""
    command = importlib.import_module(f"cbsn.cli.{name}")
    run(command.main, command.make_parser(), tensorflow=name not in _WITHOUT_TENSORFLOW)


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        lines = [f"  {each:<10}{what}" for each, what in COMMANDS.items()]
        print(f"usage: python -m {__package__} COMMAND [--help]", "", *lines, sep="\n")
        sys.exit(0 if name in ("-h", "--help") else f"error: there is no command {name!r}")
    sys.argv[:2] = [f"python -m {__package__} {name}"]  # what --help and errors call the command
    run_command(name)


if __name__ == "__main__":
    main()
