"""Pictures to score on, and a BM3D that does not take seconds."""

import sys
import types

import numpy as np
import pytest
from PIL import Image


def _write(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def clean(tmp_path):
    """A smooth gray picture and a smooth one in colour."""
    ramp = np.linspace(40, 200, 40, dtype="uint8")
    gray = np.add.outer(ramp // 2, ramp // 2)
    _write(tmp_path / "clean" / "gray.png", gray)
    _write(tmp_path / "clean" / "color.png", np.stack([gray, gray.T, 255 - gray], axis=-1))
    return tmp_path / "clean"


@pytest.fixture
def noisy(clean, tmp_path):
    """16 of 255 away from the clean ones."""
    for path in clean.iterdir():
        _write(tmp_path / "noisy" / path.name, np.asarray(Image.open(path)) ^ 16)
    return tmp_path / "noisy"


@pytest.fixture
def fake_bm3d(monkeypatch):
    """A BM3D that returns 1.5 everywhere; returns the list of its calls."""
    calls = []

    def make(kind):
        def denoise(noisy, sigma):
            calls.append((kind, noisy.shape, float(sigma)))
            return np.full(noisy.shape, 1.5)

        return denoise

    module = types.SimpleNamespace(bm3d=make("gray"), bm3d_rgb=make("color"))
    monkeypatch.setitem(sys.modules, "bm3d", module)
    return calls
