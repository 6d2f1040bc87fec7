"""The layout and the libraries that docs/architecture.md lists are those that there are."""

import re

import pytest

from tests.docs.pages import ROOT, blocks_of, project

PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _layout():
    """Returns the paths that the layout names."""
    block = next(each for each in blocks_of(PAGE) if "cbsn/\n" in each.text)
    paths, inside = [], ""
    for line in block.text.splitlines():
        indented = line.startswith("  ")
        names = re.findall(r"^(\S+(?:\.py\s+|/\s*)(?:\w+\.py\s+)*)", line.strip() + " ")
        inside = inside if indented else ""
        for name in names[0].split():
            paths.append(inside + name)
        if line.strip() == "cbsn/":
            inside = "cbsn/"
    return paths


@pytest.mark.parametrize("path", _layout())
def test_what_the_layout_names_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_the_layout_names_all_parts():
    here = (ROOT / "cbsn").iterdir()
    modules = {f"cbsn/{path.name}" for path in here if path.suffix == ".py"}
    packages = {f"cbsn/{path.parent.name}/" for path in ROOT.glob("cbsn/*/__init__.py")}
    assert packages - {*_layout()} == set()
    # Small modules; nobody needs to know where they are.
    small = ("__main__", "colors", "files", "machine", "orientations", "progress")
    assert modules - {*_layout()} <= {f"cbsn/{name}.py" for name in small}


def test_the_table_of_libraries_is_complete():
    table = TEXT.split("## Dependencies")[1].split("\n\n")[1]
    named = set()
    for row in table.splitlines()[2:]:
        cell = re.sub(r"\(.*?\)", "", row.split("|")[1])
        named |= {name.strip() for name in cell.split(",")}
    assert len(named) > 10
    extras = project()["optional-dependencies"].values()
    texts = [*project()["dependencies"], *(text for extra in extras for text in extra)]
    needed = {re.split(r"[^\w.-]", text)[0] for text in texts}
    assert named == needed - {"cbsn"}
