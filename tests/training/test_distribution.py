import json
import socket

import pytest
import tensorflow as tf

from cbsn.errors import ConfigError, TrainingError
from cbsn.training.distribution import Cluster, Workers, make_strategy


def _environment(cluster, task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": " "}])
def test_without_the_variable_a_process_is_alone(environment):
    assert Cluster.read(environment) is None


@pytest.mark.parametrize(
    ("cluster", "task", "index"),
    [
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 0}, 0),
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": "1"}, 1),
        ({"chief": ["a:1"], "worker": ["b:2"]}, {"type": "chief", "index": 0}, 0),
        ({"worker": ["b:2"], "chief": ["a:1"]}, {"type": "worker", "index": 0}, 1),
    ],
)
def test_the_chief_comes_first(cluster, task, index):
    assert Cluster.read(_environment(cluster, task)) == Cluster(("a:1", "b:2"), index)


@pytest.mark.parametrize("job", ["chief", "worker"])
def test_one_process_is_alone(job):
    assert Cluster.read(_environment({job: ["a:1"]}, {"type": job, "index": 0})) is None


def test_what_is_written_is_read():
    cluster = Cluster(("a:1", "b:2", "c:3"), 2)
    assert Cluster.read({"TF_CONFIG": cluster.to_json()}) == cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "task"),
        (Cluster(("a:1", "b:2"), 2).to_json(), "there is no worker 2"),
        (Cluster(("a", "b:2"), 0).to_json(), "every address needs a port"),
        (Cluster(("a:1", "a:1"), 0).to_json(), "an address is listed twice"),
        (Cluster(("a:1", "b:2"), 0).to_json().replace('"worker": [', '"ps": ['), "only one chief"),
    ],
)
def test_mistakes_show_what_was_received_and_how_it_ought_to_be(text, message):
    with pytest.raises(ConfigError) as error:
        Cluster.read({"TF_CONFIG": text})
    assert message in str(error.value)
    assert f"Received: TF_CONFIG={text!r}" in str(error.value)
    assert '"task": {"type": "worker", "index": 0}' in str(error.value)


@pytest.fixture
def no_gpu(monkeypatch):
    """Pretends that there is none."""
    for name in ("list_physical_devices", "get_visible_devices"):
        monkeypatch.setattr(tf.config, name, lambda kind: [])


def test_without_gpus_there_is_no_strategy_but_the_default(no_gpu):
    assert make_strategy().num_replicas_in_sync == 1


@pytest.mark.parametrize(("cpu_devices", "cluster"), [(0, None), (2, Cluster(("a:1", "b:2"), 0))])
def test_cpu_devices_are_for_one_process(no_gpu, cpu_devices, cluster):
    with pytest.raises(ConfigError, match=rf"--cpu_devices {cpu_devices}, 0 GPUs"):
        make_strategy(cluster, cpu_devices)


@pytest.mark.slow
def test_the_cpu_can_be_split(run_python):
    result = run_python(
        """
        import tensorflow as tf
        tf.config.set_visible_devices([], "GPU")
        from cbsn.training.distribution import make_strategy
        print(make_strategy(cpu_devices=3).num_replicas_in_sync)
        """
    )
    assert result.stdout == "3\n", result.stderr


@pytest.mark.slow
def test_an_address_that_is_taken_is_named(run_python, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", Cluster((address, "127.0.0.1:1"), 0).to_json())
        result = run_python(
            """
            from cbsn.training.distribution import Cluster
            from cbsn.training.distribution import make_strategy
            from cbsn.errors import ConfigError
            try:
                make_strategy(Cluster.read())
            except ConfigError as error:
                print(error)
            """
        )
    assert f"Worker 0 cannot join at {address}" in result.stdout, result.stderr


CLUSTER = Cluster(("a:1", "b:2"), 1)


def test_alone_a_process_is_the_chief_and_waits_for_nobody():
    workers = Workers(tf.distribute.get_strategy())
    assert (workers.count, workers.index, workers.is_chief) == (1, 0, True)
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
    told = r"number 1 cannot continue.*\(TensorFlow: Collective ops is aborted by: reset by peer\)"
    with pytest.raises(TrainingError, match=told), workers.watch():
        raise lost
    with pytest.raises(tf.errors.UnavailableError), Workers(tf.distribute.get_strategy()).watch():
        raise lost
    with pytest.raises(tf.errors.ResourceExhaustedError), workers.watch():
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
