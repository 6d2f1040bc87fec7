import socket

import pytest
import tensorflow as tf

from cbsn.cluster import Cluster
from cbsn.devices import make_strategy, select_gpus
from cbsn.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are two GPUs; returns what was made visible."""
    there = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    visible = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: there)
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda devices, kind: visible.extend(devices)
    )
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    return visible


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(None, [0, 1]), ("all", [0, 1]), ("0", [0]), ("1", [1]), ("1,0", [0, 1])],
)
def test_gpus_are_chosen(gpus, wanted, numbers):
    assert select_gpus(wanted) == len(numbers)
    assert [gpu.name[-1] for gpu in gpus] == [str(n) for n in numbers]


@pytest.mark.parametrize("wanted", ["2", "0,5", "-1"])
def test_a_gpu_that_is_not_there_is_an_error(gpus, wanted):
    with pytest.raises(ConfigError, match=rf"sees 2 GPUs, numbered 0 to 1.*--gpu {wanted}"):
        select_gpus(wanted)
    assert gpus == []


def test_nonsense_is_an_error(gpus):
    with pytest.raises(ConfigError, match="--gpu first"):
        select_gpus("first")


def test_without_gpus_there_is_no_strategy_but_the_default():
    assert make_strategy().num_replicas_in_sync == 1


@pytest.mark.parametrize(("cpu_devices", "cluster"), [(0, None), (2, Cluster(("a:1", "b:2"), 0))])
def test_cpu_devices_are_for_one_process(cpu_devices, cluster):
    with pytest.raises(ConfigError, match=rf"--cpu_devices {cpu_devices}, 0 GPUs"):
        make_strategy(cluster, cpu_devices)


def test_the_cpu_can_be_split(run_python):
    result = run_python(
        """
        from cbsn.devices import make_strategy
        print(make_strategy(cpu_devices=3).num_replicas_in_sync)
        """
    )
    assert result.stdout == "3\n", result.stderr


def test_an_address_that_is_taken_is_named(run_python, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", Cluster((address, "127.0.0.1:1"), 0).to_json())
        result = run_python(
            """
            from cbsn.cluster import Cluster
            from cbsn.devices import make_strategy
            from cbsn.errors import ConfigError
            try:
                make_strategy(Cluster.read())
            except ConfigError as error:
                print(error)
            """
        )
    assert f"Worker 0 cannot take part at {address}" in result.stdout, result.stderr
