import dataclasses

import pytest

from cbsn.recipes import RECIPES


@pytest.fixture
def recipe():
    """A training small enough for a test."""
    return dataclasses.replace(
        RECIPES["cbsn"],
        network_config={"filters": 4, "num_modules": 1},
        patch_size=20,
        batch_size=2,
        learning_rate=1e-3,
    )
