"""Small pictures."""

import numpy as np
import pytest


@pytest.fixture
def rgb(random):
    return random.integers(0, 256, (16, 20, 3)).astype(np.uint8)


@pytest.fixture
def gray(random):
    return random.integers(0, 65536, (16, 20)).astype(np.uint16)
