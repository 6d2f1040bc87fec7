"""Fixtures for the plugin of napari: a viewer without a window, and what is told to the user."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

if not (sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # before anything imports Qt


def _is_usable():
    if not all(map(importlib.util.find_spec, ("napari", "pytestqt", "qtpy", "superqt"))):
        return False
    try:
        importlib.import_module("qtpy.QtWidgets")
    except Exception:  # there is no Qt, or libraries of the system are missing
        return False
    return True


IS_USABLE = _is_usable()
if not IS_USABLE:  # which test_usable.py says
    here = Path(__file__).parent
    collect_ignore = [each.name for each in here.glob("test_*") if each.name != "test_usable.py"]


@pytest.fixture
def is_usable():
    """Whether there are napari, and a Qt with the libraries of the system that it needs."""
    return IS_USABLE


@pytest.fixture
def viewer(qtbot):
    """A viewer's model, which has no canvas, so it needs no OpenGL."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def told(monkeypatch):
    """What napari is to show, as pairs of a kind and a text."""
    from napari.utils import notifications

    found = []
    for kind in ("info", "warning", "error"):
        monkeypatch.setattr(
            notifications, f"show_{kind}", lambda text, kind=kind: found.append((kind, text))
        )
    return found


@pytest.fixture(autouse=True)
def no_other_models(monkeypatch):
    """No test finds the models that another one has added."""
    if IS_USABLE:
        from cbsn.napari_plugin import choices

        monkeypatch.setattr(choices, "_models", [])
