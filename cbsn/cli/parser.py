"""The parser of the commands: common flags first, earlier names, pictures by position."""

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

_UNKNOWN = re.compile(r"unrecognized arguments: (--?[^\s=]*)")
_NUMBERS = re.compile(r"all|-?\d+(,-?\d+)*")  # values of `--gpu`


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a flag by its first name, and its default unless that is None or False."""

    show_earlier_names = False

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction) or not action.option_strings:
            return super()._format_action_invocation(action)
        name = "-h, --help" if action.dest == "help" else action.option_strings[0]
        if action.nargs == 0:
            return name
        return f"{name} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if action.default not in (None, False):
            text = super()._get_help_string(action) or ""
        earlier = action.option_strings[1:]
        if self.show_earlier_names and earlier and action.nargs != 0:
            text += f" (also {', '.join(earlier)})"
        return text


class _FullHelpFormatter(_HelpFormatter):
    show_earlier_names = True


class _HelpAll(argparse.Action):
    """Prints all flags with all their names."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_full_help(), end="")
        parser.exit()


class _OnePlace(argparse.Action):
    """Stores what stands at a position, unless a flag has given it already."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest, None):
            parser.surplus.append(values)
        else:
            setattr(namespace, self.dest, values)


class Parser(argparse_flags.ArgumentParser):
    """Parses flags; `--help` shows the common ones, `--help-all` all of them.

    Names may be written with hyphens or underscores. A mistake is reported on one line, as `run`
    does for any error.

    Args:
        common: destinations of the flags that `--help` shows. Default: all.
        examples: command lines for the end of the help.
    """

    def __init__(self, *, common: Collection[str] = (), examples: str = "", **options: Any):
        super().__init__(formatter_class=_HelpFormatter, add_help=False, **options)
        self.common = {*common, "help", "help_all"} if common else None
        self.examples = examples
        self.inputs: argparse.Action | None = None  # pictures, by position or by `--input`
        self.needs_inputs = False
        self.surplus: list[str] = []  # what stands where pictures may, after a flag has named some
        text = "show the common flags and exit" if common else "show this help and exit"
        self.add_argument("-h", "--help", "--helpshort", action="help", help=text)
        names = ("--help-all", "--help_all", "--helpfull")
        text = "show all flags, with their earlier names, and exit"
        unset = argparse.SUPPRESS
        self.add_argument(
            *names, nargs=0, action=_HelpAll, dest="help_all", default=unset, help=text
        )

    def format_help(self) -> str:
        """Returns the help with the common flags."""
        return self._format(self._get_formatter(), self.common)

    def format_full_help(self) -> str:
        """Returns the help with all flags."""
        return self._format(_FullHelpFormatter(self.prog), None)

    def _format(self, formatter: argparse.HelpFormatter, dests: Collection[str] | None) -> str:
        actions = [a for a in self._actions if a.help != argparse.SUPPRESS]
        shown = [a for a in actions if dests is None or a.dest in dests]
        required = [a for a in actions if a.required and a.option_strings]
        places = [a for a in actions if not a.option_strings]
        usage = " ".join(
            [self.prog]
            + [f"{a.option_strings[0]} {a.metavar or a.dest.upper()}" for a in required]
            + [formatter._format_args(a, str(a.metavar or a.dest)) for a in places]
        )
        formatter.add_text(f"usage: {usage} [flags]")
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments([a for a in group._group_actions if a in shown])
            formatter.end_section()
        text = formatter.format_help()
        return f"{text}\nexamples:\n{self.examples.strip(chr(10))}\n" if self.examples else text

    def error(self, message: str) -> NoReturn:
        """Prints the message, with advice for what is unknown, and ends the command."""
        if unknown := _UNKNOWN.match(message):
            names = [name for action in self._actions for name in action.option_strings[:1]]
            if near := difflib.get_close_matches(unknown[1], names, 1):
                message += f"; did you mean {near[0]}?"
            elif self.inputs and not unknown[1].startswith("--"):
                message += "; write ./ before the name of a file that begins with -"
        sentence = message if message.endswith("?") else f"{message.rstrip('.')}."
        self.exit(2, f"error: {sentence} See {self.prog} --help\n")

    def parse_known_args(self, args=None, namespace=None):
        """Parses the flags; pictures may stand before, between and after them."""
        args = [*(sys.argv[1:] if args is None else args)]
        self.surplus.clear()
        known, others = super().parse_known_args([*self._normalized(args)], namespace)
        others += self.surplus
        if self.inputs:
            self._take_inputs(known, others, self.inputs)
        return known, others

    def _take_inputs(
        self, known: argparse.Namespace, others: list[str], inputs: argparse.Action
    ) -> None:
        """Adds pictures that stand after flags, which argparse does not recognize."""
        given = getattr(known, inputs.dest, None)
        found = [each for each in others if not each.startswith("-")]
        is_clear = len(found) == len(others)  # else one may be the value of a flag that is unknown
        if found and inputs.nargs == "*":
            setattr(known, inputs.dest, [*(given or []), *found])
        elif found:
            every = " ".join(found if given is None else [given, *found])
            if given is not None or len(found) > 1:
                if not is_clear:
                    return  # which is reported
                self.error(f"takes one folder, or one glob in quotes. Received: {every}")
            setattr(known, inputs.dest, found[0])
        elif given is None and self.needs_inputs and is_clear:  # else the others are reported
            self.error("there are no pictures: give a folder, a glob in quotes, or files")
        others[:] = [each for each in others if each not in found]

    def _normalized(self, args: Sequence[str]) -> Iterator[str]:
        """Yields the arguments with the names that flags were added by."""
        for index, arg in enumerate(args):
            if arg == "--":
                yield from args[index:]
                return
            name, equals, value = arg.partition("=")
            if arg.startswith("--") and name not in self._option_string_actions:
                negated = "--no-" if name.startswith("--no-") else "--"
                new = negated + name.removeprefix(negated).replace("-", "_")
                if new in self._option_string_actions:
                    arg = new + equals + value
            if arg == "--gpu" and arg in self._option_string_actions:
                following = "".join(args[index + 1 : index + 2])
                if not _NUMBERS.fullmatch(following):
                    arg = "--gpu=all"  # else it would take a picture for its value
            yield arg

    def _get_option_tuples(self, option_string):
        """Returns what an abbreviation may stand for; several names of one flag are one."""
        found = super()._get_option_tuples(option_string)
        return [*{id(each[0]): each for each in found}.values()]


def new_parser(description: str, *, common: Collection[str] = (), examples: str = "") -> Parser:
    """Returns a `Parser`; see there."""
    return Parser(description=description, common=common, examples=examples)


def add_input(
    parser: Parser,
    dest: str,
    help: str,
    *earlier: str,
    metavar: str = "PICTURES",
    several: bool = True,
    required: bool = True,
) -> None:
    """Adds pictures, given by position or by `--input`.

    Args:
        parser: the command's parser.
        dest: name in the namespace: of a list if `several`, else of one string.
        help: what they are.
        *earlier: earlier names of `--input`.
        metavar: name for the help.
        several: whether there may be several folders, globs or files.
        required: whether it is an error to give none.
    """
    options: dict[str, Any] = {"metavar": metavar, "default": argparse.SUPPRESS}
    place, flag = ("*", "+") if several else ("?", None)
    action = "store" if several else _OnePlace
    parser.inputs = parser.add_argument(dest, action=action, nargs=place, help=help, **options)
    parser.needs_inputs = required
    names, again = ("--input", *earlier), f"another way to give {metavar}"
    parser.add_argument(*names, dest=dest, nargs=flag, help=again, **options)
