"""The directive `flags`: the flags of a command, read from the parser that the command uses."""

import argparse
import importlib
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from cbsn.cli import COMMANDS


class Flags(SphinxDirective):
    """Inserts what a command does, examples, and tables of its flags, the common ones first."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns the description of the command."""
        name = self.arguments[0]
        self.env.metadata[self.env.docname].setdefault("commands", []).append(name)
        return [*_describe(importlib.import_module(f"cbsn.cli.{name}").make_parser())]


def _describe(parser: Any) -> Iterable[nodes.Node]:
    yield nodes.paragraph("", parser.description or "")
    if parser.examples:
        examples = "\n".join(line.strip() for line in parser.examples.strip().splitlines())
        yield nodes.literal_block(examples, examples, language="sh")
    first, others = [], {}  # `others` by the titles of their groups
    for group in parser._action_groups:
        for action in group._group_actions:
            hidden = action.help == argparse.SUPPRESS or action.dest in ("help", "help_all")
            if hidden or isinstance(action, argparse._SubParsersAction):
                continue
            is_common = parser.common is None or action.dest in parser.common
            (first if is_common else others.setdefault(group.title, [])).append(action)
    if first:
        yield _table(first, parser)
    for title, actions in others.items():
        yield nodes.rubric("", "Less common" if title == "options" else f"Less common: {title}")
        yield _table(actions, parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield nodes.rubric("", each.prog)
                yield from _describe(each)


def _table(actions: list[argparse.Action], parser: Any) -> nodes.table:
    formatter, body = parser._get_formatter(), nodes.tbody()
    for action in actions:
        flag = nodes.literal("", formatter._format_action_invocation(action))
        help_text = formatter._expand_help(action) if action.help else ""
        if action.nargs != 0 and action.option_strings[1:]:
            help_text += f". Earlier: {', '.join(action.option_strings[1:])}"
        parts = re.split(r"(?<![\w-])(--\w[\w-]*)", help_text)
        text = [nodes.literal("", p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts)]
        cells = [nodes.paragraph("", "", flag), nodes.paragraph("", "", *text)]
        body += nodes.row("", *[nodes.entry("", cell) for cell in cells])
    columns = [nodes.colspec(colwidth=width) for width in (35, 65)]
    return nodes.table("", nodes.tgroup("", *columns, body, cols=2), classes=["flags"])


def _check(app: Sphinx, env) -> None:
    """Warns of commands that no page describes."""
    described = {name for each in env.metadata.values() for name in each.get("commands", ())}
    for name in COMMANDS:
        if name not in described:
            logging.getLogger(__name__).warning("no page describes cbsn %s: add {flags}", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("flags", Flags)
    app.connect("env-updated", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
