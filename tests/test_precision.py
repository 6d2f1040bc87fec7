import keras
import pytest
import tensorflow as tf

from cbsn import precision
from cbsn.errors import ConfigError
from cbsn.precision import PRECISIONS, choose_precision, cpu_flags


@pytest.fixture
def cpu(monkeypatch):
    """Pretends that the processor can do so much, and that there is no GPU."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])

    def pretend(*flags):
        monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))

    return pretend


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are GPUs of these compute capabilities."""

    def pretend(*capabilities):
        details = [{"compute_capability": c} if c else {} for c in capabilities]
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: range(len(details)))
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)

    return pretend


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_what_is_asked_for_is_taken(cpu, wanted):
    cpu()
    assert choose_precision(wanted) == (wanted, "as requested")


@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16"])
def test_auto_takes_bfloat16_where_the_processor_has_it(cpu, feature):
    cpu("sse", feature)
    assert choose_precision("auto")[0] == "mixed_bfloat16"
    assert feature in choose_precision("auto")[1]
    cpu("sse", "avx512f", "amx_int8")
    chosen, why = choose_precision("auto")
    assert chosen == "float32"
    assert "none of amx_bf16, avx512_bf16" in why


def test_thin_volumes_need_float32_on_a_processor(cpu, gpus, monkeypatch):
    cpu("avx512_bf16")
    for depth, expected in (None, "mixed_bfloat16"), (3, "mixed_bfloat16"), (2, "float32"):
        assert choose_precision("auto", depth)[0] == expected
    assert "need 3 planes" in choose_precision("auto", 1)[1]
    advice = r"patches of more planes, or --precision float32\. Received: 2 after the halvings$"
    with pytest.raises(ConfigError, match=advice):
        choose_precision("mixed_bfloat16", 2)
    for wanted in "float32", "mixed_float16":
        assert choose_precision(wanted, 2) == (wanted, "as requested")
    gpus((9, 0))
    assert choose_precision("auto", 1)[0] == "mixed_bfloat16"
    assert choose_precision("mixed_bfloat16", 1)[0] == "mixed_bfloat16"


def test_auto_needs_onednn_on_a_processor(cpu, monkeypatch):
    cpu("amx_bf16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    chosen, why = choose_precision("auto")
    assert (chosen, "TF_ENABLE_ONEDNN_OPTS" in why) == ("float32", True)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0), (8, 6)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(9, 0), (7, 0)], "mixed_float16"),
        ([(7, 0), (6, 1)], "float32"),
        ([None], "float32"),
        ([(9, 0), None], "float32"),
    ],
)
def test_auto_asks_all_gpus(gpus, capabilities, expected):
    gpus(*capabilities)
    chosen, why = choose_precision("auto")
    assert chosen == expected
    assert "compute capability" in why


def test_auto_is_float32_on_other_backends(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert choose_precision("auto")[0] == "float32"


@pytest.mark.parametrize("wanted", ["bfloat16", "float64", ""])
def test_others_are_refused(wanted):
    with pytest.raises(ConfigError, match=f"--precision must be auto or one of.*{wanted!r}"):
        choose_precision(wanted)


def test_flags_are_words():
    assert all(flag == flag.strip() for flag in cpu_flags())
