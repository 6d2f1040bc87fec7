"""Describes this installation, to paste into a bug report. See `--help`."""

import argparse
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

import cbsn
from cbsn.cli.parser import Parser, new_parser

# Others may hold what does not belong in a public bug report.
_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "KERAS_BACKEND", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS"),
    *("ONEDNN_MAX_CPU_ISA", "TF_CUDNN_USE_AUTOTUNE"),
    *("TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "TF_XLA_FLAGS"),
    *("XLA_FLAGS",),
)


def main(flags: argparse.Namespace) -> None:
    """Prints the description."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.inference.engines import ENGINES
    from cbsn.inference.engines.choice import listed
    from cbsn.machine import describe
    from cbsn.models import SHIPPED
    from cbsn.models.folder import is_model_folder
    from cbsn.precision import choose_precision

    precision, why = choose_precision("auto")
    folders = filter(is_model_folder, SHIPPED.glob("*"))
    models = sorted(folder.name.replace("_", "-") for folder in folders)
    facts: dict[str, Any] = {"cbsn": f"{cbsn.__version__}, in {Path(cbsn.__file__).parent}"}
    facts |= describe()
    facts["precision"] = f"{precision}: {why}"
    engines = [name for name, engine in ENGINES.items() if not engine.missing()]
    facts["engines"] = ", ".join(engines)
    facts["measured"] = "; ".join(listed()) or "no engines yet"
    facts["models"] = f"{', '.join(models) or 'none'}, in {SHIPPED}"
    facts["libraries"] = ", ".join(_versions(optional=False))
    facts["extras"] = ", ".join(_versions(optional=True)) or "none"
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    facts["environment"] = " ".join(given) or "no variable of TensorFlow or CUDA"
    width = max(map(len, facts))
    print(*(f"{name:<{width}}  {fact}" for name, fact in facts.items()), sep="\n")


def _versions(*, optional: bool) -> list[str]:
    """Returns the installed libraries that the package requires, or those of its extras."""
    required, extras = set(), set()
    try:
        lines = importlib.metadata.requires("cbsn") or ()
    except importlib.metadata.PackageNotFoundError:
        return ["unknown: the package is not installed"]
    for line in lines:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)", line)
        if extra is None:
            required.add(name)
        elif extra[1] not in ("dev", "docs"):
            extras.add(name)
    found = {}
    for name in extras - required if optional else required:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if not optional:
                found[name] = "missing"
    return [f"{name} {version}" for name, version in sorted(found.items())]


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    return new_parser(
        "Describes this installation: versions, processor, GPUs, and the precision and engine that "
        "would be chosen, with reasons. Paste it into bug reports."
    )
