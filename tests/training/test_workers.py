import pytest
import tensorflow as tf

from cbsn.errors import TrainingError
from cbsn.training.distribution import Cluster, Workers

CLUSTER = Cluster(("a:1", "b:2"), 1)


def test_alone_a_process_is_the_chief_and_waits_for_nobody():
    workers = Workers(tf.distribute.get_strategy())
    assert (workers.count, workers.index, workers.is_chief) == (1, 0, True)
    workers.wait()
    workers.agree(5, "number")
    assert (workers.any(True), workers.any(False)) == (True, False)
    with workers.chief_first():
        pass


def test_the_first_of_several_is_the_chief():
    strategy = tf.distribute.get_strategy()
    assert [Workers(strategy, Cluster(CLUSTER.addresses, i)).is_chief for i in range(2)] == [1, 0]


def test_a_lost_worker_is_named_as_such():
    workers = Workers(tf.distribute.get_strategy(), CLUSTER)
    lost = tf.errors.UnavailableError(
        None, None, "Graph error:\n{{node x}} Collective ops is aborted by: reset by peer"
    )
    told = r"number 1 cannot go on.*\(TensorFlow: Collective ops is aborted by: reset by peer\)"
    with pytest.raises(TrainingError, match=told), workers.watch():
        raise lost
    with pytest.raises(tf.errors.UnavailableError), Workers(tf.distribute.get_strategy()).watch():
        raise lost
    with pytest.raises(tf.errors.ResourceExhaustedError), workers.watch():
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
