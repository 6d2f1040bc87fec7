"""Templates of HTML."""

from pathlib import Path

import jinja2


def templates(folder: Path) -> jinja2.Environment:
    """Returns the templates of a folder; they escape what they are given, and miss nothing."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
