"""Fixtures: TIFF files of many kinds."""

import runpy
from pathlib import Path

import pytest

# Not imported by name, as tests are no package.
SAMPLES = runpy.run_path(str(Path(__file__).with_name("samples.py")))["SAMPLES"]


@pytest.fixture(params=SAMPLES)
def sample(request, tmp_path):
    """The path of a sample."""
    path = tmp_path / request.param
    SAMPLES[request.param](path)
    return path


@pytest.fixture
def write_sample(tmp_path):
    """Writes the sample with a name, and returns its path."""

    def write(name):
        path = tmp_path / name
        SAMPLES[name](path)
        return path

    return write
