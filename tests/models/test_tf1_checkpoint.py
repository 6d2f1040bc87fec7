import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ModelError
from cbsn.models.loading import load_model
from cbsn.models.tf1_checkpoint import TF1Checkpoint, variable_names
from cbsn.networks import ConditionalBlindSpotNetwork


def test_names_are_the_originals_in_creation_order(golden):
    expected = json.loads(golden("small/variables.json").read_text())["creation_order"]
    assert [theirs for theirs, _ in variable_names(2)] == [name for name, _ in expected]


def test_sizes_are_read_from_the_checkpoint(golden):
    checkpoint = TF1Checkpoint(golden("small/CBSN_small.ckpt"))
    assert (checkpoint.filters, checkpoint.num_modules) == (16, 2)


def test_every_weight_is_loaded(golden):
    checkpoint = TF1Checkpoint(golden("trained/CBSN_iter201500.ckpt"))
    network = ConditionalBlindSpotNetwork(16, 2)
    checkpoint.load_into(network)
    reader = tf.train.load_checkpoint(checkpoint.prefix)
    weights = {weight.path.split("/", 1)[1]: weight.numpy() for weight in network.weights}
    for theirs, ours in variable_names(2):
        np.testing.assert_array_equal(weights[ours], reader.get_tensor(theirs))


def test_another_size_is_refused(golden):
    checkpoint = TF1Checkpoint(golden("small/CBSN_small.ckpt"))
    with pytest.raises(ModelError, match="conv0/kernel"):
        checkpoint.load_into(ConditionalBlindSpotNetwork(8, 2))
    with pytest.raises(ModelError, match="lacks branch1/module2"):
        checkpoint.load_into(ConditionalBlindSpotNetwork(16, 3))


def test_another_networks_checkpoint_is_refused(tmp_path):
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "other"))
    with pytest.raises(ModelError, match="not one of the original"):
        TF1Checkpoint(prefix)


def test_a_broken_checkpoint_is_an_error(tmp_path):
    (tmp_path / "bad.index").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        TF1Checkpoint(tmp_path / "bad")


@pytest.fixture
def copy(golden, tmp_path):
    """The prefix of a copy that may be damaged."""
    for file in golden("small/CBSN_small.ckpt").parent.glob("CBSN_small.ckpt.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "CBSN_small.ckpt"


def _flip(data):
    data[len(data) // 2] ^= 1


def _cut(data):
    del data[len(data) // 2 :]


@pytest.mark.parametrize("damage", [_flip, _cut, bytearray.clear])
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_file_is_a_model_error(copy, suffix, damage):
    path = copy.with_name(copy.name + suffix)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"not a readable checkpoint.*Copy its \.index") as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)


def test_a_missing_data_file_is_a_model_error(copy):
    copy.with_name(copy.name + ".data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        load_model(copy)


@pytest.mark.parametrize("shape", [(1, 1, 3, 10**6), (1, 1, 3, 0), (1, 1, 3, 4), ()])
def test_a_checkpoint_of_any_size_is_a_model_error(tmp_path, shape):
    """What the index says of shapes is known before memory is taken for a network."""
    path = str(tmp_path / "any")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        head = tf.compat.v1.get_variable("DBSN/conv0/kernel", initializer=tf.zeros(shape))
        session.run(head.initializer)
        tf.compat.v1.train.Saver([head]).save(session, path)
    with pytest.raises(ModelError):
        load_model(path)


def test_values_that_are_not_finite_are_refused(copy, monkeypatch):
    checkpoint = TF1Checkpoint(copy)
    monkeypatch.setattr(
        checkpoint, "_reader", _Reader(checkpoint._reader, "DBSN/conv0/bias", np.float32("nan"))
    )
    with pytest.raises(ModelError, match="conv0/bias does not hold finite floats"):
        checkpoint.load_into(ConditionalBlindSpotNetwork(16, 2))


class _Reader:
    """One whose variable of a name is full of a value."""

    def __init__(self, reader, name, value):
        self._reader, self._name, self._value = reader, name, value
        self.has_tensor = reader.has_tensor

    def get_tensor(self, name):
        tensor = self._reader.get_tensor(name)
        return np.full_like(tensor, self._value) if name == self._name else tensor
