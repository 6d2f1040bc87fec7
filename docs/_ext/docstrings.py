"""Translates docstrings, Google style with Markdown's backquotes, to what napoleon reads."""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"(`[^`]+`)")
_SECTION = re.compile(r"[A-Z]\w+( \w+)?:")  # such as "Args:"
_BEFORE_NAPOLEON = 400


def to_rst(docstring: str) -> str:
    """Escapes what reStructuredText would take for markup, and marks formulas as literal blocks.

    A formula is an indented block after a line of prose that ends with a colon.
    """
    blocks: list[str] = []
    for block in docstring.split("\n\n"):
        before = blocks[-1].rsplit("\n", 1)[-1] if blocks else ""
        is_prose = before.endswith(":") and not before.startswith(" ")
        if block.startswith("    ") and is_prose and not _SECTION.fullmatch(before):
            blocks[-1] += ":"
        else:
            prose, example, rest = block.partition(">>>")
            block = _escaped(prose) + example + rest
        blocks.append(block)
    return "\n\n".join(blocks)


def _escaped(text: str) -> str:
    parts = _CODE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|])|(?<=\w)(_)(?!\w)", r"\\\1\2", parts[i])
        if i and parts[i][:1].isalnum():
            parts[i] = "\\ " + parts[i]  # code ends where it is followed by no letter
    return "".join(parts)


def _translate(app: Sphinx, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the translation."""
    app.connect("autodoc-process-docstring", _translate, priority=_BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
