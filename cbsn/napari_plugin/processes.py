"""Other Python processes, in which TensorFlow runs.

It cannot run in napari's own: on Linux it exports the symbols of its LLVM, and so do Mesa's drivers
of OpenGL, which napari draws with. A process that has both crashes. Besides, napari stays
responsive, and the memory of a training is given back at its end.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cbsn


def start(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """Starts a command that runs this package, with pipes for input and output.

    Args:
        command: the program and its arguments.
        **options: of `subprocess.Popen`.
    """
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    source = Path(cbsn.__file__).resolve().parents[1]
    if "site-packages" not in source.parts:
        # A clone that is not installed is found from its own folder only.
        paths = filter(None, (str(source), variables.get("PYTHONPATH")))
        variables["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # On Windows, a program without a console would get a window of its own.
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        **options,
    )


def module_command(module: str, *arguments: str) -> list[str]:
    """Returns the command that runs a module of this package."""
    return [sys.executable, "-m", f"cbsn.napari_plugin.{module}", *arguments]
