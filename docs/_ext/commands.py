"""The directive `flags`: the flags of a command, read from the parser that the command uses."""

import argparse
import importlib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from cbsn.__main__ import COMMANDS

_LOG = logging.getLogger(__name__)


class Flags(SphinxDirective):
    """Inserts a usage line and tables of the flags of `cbsn COMMAND`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns the usage and the tables."""
        name = self.arguments[0]
        self.env.metadata[self.env.docname].setdefault("commands", []).append(name)
        parser = importlib.import_module(f"cbsn.cli.{name}").make_parser()
        return _describe(parser, f"cbsn {name}")


def _describe(parser: argparse.ArgumentParser, command: str) -> list[nodes.Node]:
    found: list[nodes.Node] = [nodes.paragraph("", parser.description or "")]
    for group in parser._action_groups:
        rows = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        rows = [a for a in rows if not isinstance(a, argparse._SubParsersAction | _HELP)]
        if rows:
            title = group.title if group.title not in ("options", "positional arguments") else ""
            found += [nodes.rubric("", title)] if title else []
            found.append(_table([_row(action) for action in rows]))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                found += [nodes.rubric("", f"{command} {name}"), *_describe(sub, name)]
    return found


_HELP = argparse._HelpAction


def _row(action: argparse.Action) -> list[nodes.Node]:
    names = action.option_strings or [str(action.metavar or action.dest)]
    value = ""
    if action.nargs != 0 and action.option_strings:
        value = str(action.metavar or "")
        if action.choices:
            value = " | ".join(map(str, action.choices))
    flag = nodes.paragraph()
    for i, each in enumerate(names):
        flag += [nodes.Text(", ")] if i else []
        flag += nodes.literal("", each)
    flag += [nodes.Text(" "), nodes.emphasis("", value)] if value else []
    return [flag, nodes.paragraph("", action.help or "")]


def _table(rows: list[list[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup("", *[nodes.colspec(colwidth=w) for w in (30, 70)], cols=2)
    group += nodes.tbody("", *[nodes.row("", *[nodes.entry("", c) for c in row]) for row in rows])
    return nodes.table("", group, classes=["flags"])


def _check(app: Sphinx, env) -> None:
    """Warns of commands that the pages do not describe."""
    described = {name for each in env.metadata.values() for name in each.get("commands", ())}
    for name in COMMANDS.keys() - described:
        _LOG.warning("no page describes the command %r: {flags} %s", name, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("flags", Flags)
    app.connect("env-updated", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
