"""Imports between packages go one way: what stands lower knows nothing of what stands above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    {"errors"},
    {"value_range", "files", "precision", "sampling", "colors", "orientations", "devices"},
    {"importing", "machine", "progress", "signals"},
    {"images", "noise", "networks", "objectives", "normalization"},
    {"augmentation", "data"},
    {"recipes", "data_prep"},
    {"models"},
    {"inference", "client"},
    {"export", "evaluation"},
    {"training"},
    {"api", "app"},
    {"cli", "napari_plugin"},
    {"__main__"},
]
"""From the lowest to the highest. A package imports those below its own layer."""

WITHIN = {
    # In the order of their layer's names: from, to.
    ("client", "inference"),  # the folder loop, for pictures that a server denoises
    ("export", "client"),  # the names of a served model's inputs and outputs
    ("normalization", "value_range"),
}
"""Imports within a layer."""

FORBIDDEN = {
    ("training", "export"),
    ("evaluation", "export"),
}
"""Imports that the layers would allow, but the parts have nothing to do with each other."""


def _package(module: str) -> str:
    """Of `cbsn.data.records` "data"; of `data_prep.prepare` "data_prep"."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cbsn" and len(parts) > 1 else parts[0]


def _imports() -> set[tuple[str, str, str]]:
    """All imports between packages: the file, its package, and the one that it imports."""
    found = set()
    for path in [*ROOT.glob("cbsn/**/*.py"), *ROOT.glob("data_prep/**/*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name == "cbsn":  # the public names, which it loads when they are asked for
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "cbsn":
                modules = [f"cbsn.{each.name}" for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                continue
            for module in modules:
                if module.startswith(("cbsn.", "data_prep")) and module != "cbsn.__version__":
                    found.add((name, _package(name), _package(module)))
    return {each for each in found if each[1] != each[2]}


IMPORTS = _imports()
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def test_every_package_has_a_layer():
    packages = {package for _, *both in IMPORTS for package in both}
    assert packages == LEVELS.keys()


def test_imports_go_down():
    wrong = [
        f"{name} imports {to}"
        for name, package, to in sorted(IMPORTS)
        if (package, to) not in WITHIN
        and (LEVELS[to] >= LEVELS[package] or (package, to) in FORBIDDEN)
    ]
    assert wrong == []


@pytest.mark.parametrize("pair", sorted(WITHIN))
def test_exceptions_are_needed(pair):
    assert pair in {(package, to) for _, package, to in IMPORTS}
