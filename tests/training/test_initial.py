import numpy as np
import pytest

from cbsn.errors import ConfigError, ModelError
from cbsn.models.loading import load_model, read_initial


def test_the_size_of_the_network_comes_with_the_weights(tmp_path, model):
    changes, weights = read_initial(tmp_path / model, "cbsn", {"max_steps": 3, "filters": None})
    assert changes == {"max_steps": 3, "filters": 4, "num_modules": 1, "channels": 3}
    expected = load_model(tmp_path / model)[1].get_weights()
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("apbsn", {}, "network='DilatedBlindSpotNetwork'.*--recipe cbsn.*--init"),
        ("cbsn", {"filters": 8}, "filters=4.*Received: filters=8"),
        ("cbsn", {"channels": 1}, "channels=3.*Received: channels=1"),
    ],
)
def test_other_networks_are_refused(tmp_path, model, recipe, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_initial(tmp_path / model, recipe, changes)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="nothing"):
        read_initial(tmp_path / "nothing", "cbsn", {})
