"""Prints a script that completes commands and flags in a shell. See `--help`."""

import argparse
import importlib

from cbsn.cli import COMMANDS
from cbsn.cli.parser import Parser, new_parser

_SHELLS = ("bash", "zsh", "tcsh")


def main(flags: argparse.Namespace) -> None:
    """Prints the script."""
    import shtab

    print(shtab.complete(_whole_parser(), flags.shell))


def _whole_parser() -> argparse.ArgumentParser:
    """Returns one parser with all commands."""
    import shtab

    whole = argparse.ArgumentParser("cbsn")
    commands = whole.add_subparsers(dest="command", parser_class=Parser)
    for name, what in COMMANDS.items():
        commands.add_parser(name, help=what)
        parser = importlib.import_module(f"cbsn.cli.{name}").make_parser()
        parser.prog = f"cbsn {name}"
        commands.choices[name] = parser
        for action in parser._actions:
            if action.metavar in ("PICTURES", "FILE", "MODEL", "DIR", "PATH", "GLOB"):
                kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]
    return whole


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Prints a script that completes commands and flags in a shell.",
        examples="""
  cbsn completion bash > ~/.local/share/bash-completion/completions/cbsn
  cbsn completion zsh > ~/.zfunc/_cbsn            # a folder of $fpath
""",
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell")
    return parser
