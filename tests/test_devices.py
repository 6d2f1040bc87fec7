import pytest
import tensorflow as tf

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
