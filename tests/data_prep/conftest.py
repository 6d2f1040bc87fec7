"""Pictures of one value each, which their patches show, and what is made of them."""

import collections

import numpy as np
import pytest
from PIL import Image

from cbsn.data.records import PatchRecords
from data_prep import convert


@pytest.fixture
def save():
    """Writes a picture of one value: by default two patches of 16 × 16."""

    def write(path, value, shape=(32, 16)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)

    return write


@pytest.fixture
def photos(tmp_path, monkeypatch, save):
    """Six pictures, in chunks of two."""
    monkeypatch.setattr(convert, "CHUNK_FILES", 2)
    for value in range(6):
        save(tmp_path / f"photos/{value}.png", value)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def content():
    """How often each value occurs among the patches of a data set, by value."""

    def count(out):
        values = collections.Counter(int(patch[0, 0, 0]) for patch in PatchRecords.open(out))
        return dict(sorted(values.items()))

    return count
