import pytest

from cbsn.errors import ConfigError, check_number, plain_reason


class TensorFlowError(Exception):
    message = "{{function_node __wrapped__SaveV2}} a/b;\n No space left [Op:SaveV2] [[{{node x}}]]"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("as it is"), "as it is"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (RuntimeError("two\n  lines"), "two lines"),
        (TensorFlowError(), "a/b; No space left"),
        (KeyError(), "KeyError"),
    ],
)
def test_a_reason_is_one_plain_line(error, text):
    assert plain_reason(error) == text


def test_a_long_reason_is_cut_off():
    for text in ("layer " * 1000, "x" * 1000):
        assert plain_reason(ValueError(text)) == text[:500] + "…"


@pytest.mark.parametrize("value", [0, -1, 11, 10**30, float("nan"), float("inf"), -float("inf")])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(
        ConfigError, match=rf"--n must be .*Received: --n {value}".replace("+", ".")
    ):
        check_number("--n", value, 1, 10)
    with pytest.raises(ConfigError, match="--n must be "):
        check_number("--n", value, 0.0, 10, above=True)


def test_numbers_in_range_are_taken():
    for value in (1, 1.5, 10):
        check_number("--n", value, 1, 10)
    check_number("--n", 1e-9, 0, above=True)
