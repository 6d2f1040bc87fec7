import json

import numpy as np
import pytest
import tensorflow as tf

from cbsn.compat.tf1_checkpoint import TF1Checkpoint, variable_names
from cbsn.errors import ModelError
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
