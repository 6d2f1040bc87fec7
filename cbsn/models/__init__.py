"""Trained models: saved, found, loaded."""

from pathlib import Path

# The shipped models are inside an installed package, or next to the package in a clone.
_PACKAGE = Path(__file__).resolve().parents[1]
_PARENT = _PACKAGE if (_PACKAGE / "pretrained").is_dir() else _PACKAGE.parent
SHIPPED = _PARENT / "pretrained"
