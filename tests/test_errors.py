from pathlib import Path

import numpy as np
import pytest

from cbsn.errors import ConfigError, brief, check_number, check_paths, check_texts, plain_reason


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
    # Of the last two, each beginning of a node's name must not be followed to the end.
    for text in ("layer " * 1000, "x" * 1000, "[" * 200_000, "{{" * 100_000):
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
    for value in (np.float32(2), np.uint8(2)):
        check_number("--n", value, 1, 10)
    for value in (1, 10, np.uint8(2)):
        check_number("--n", value, 1, 10, whole=True)


@pytest.mark.parametrize("value", ["4", None, True, [1], (), b"4", 2j], ids=repr)
def test_what_is_no_number_is_refused(value):
    for whole, kind in ((False, "a number"), (True, "a whole number")):
        with pytest.raises(ConfigError) as error:
            check_number("--n", value, 1, 10, whole=whole)
        assert str(error.value) == f"--n must be {kind}. Received: --n {value!r}"


@pytest.mark.parametrize("value", [2.5, 2.0, np.float32(2)], ids=repr)
def test_fractions_are_no_whole_numbers(value):
    with pytest.raises(ConfigError, match=r"--n must be a whole number\. Received: --n 2\."):
        check_number("--n", value, 1, 10, whole=True)


def test_paths_are_texts_or_objects():
    check_paths({"out": "a", "source": Path("a")})
    for value in (5, None, ["a"], b"a"):
        with pytest.raises(ConfigError, match=r"source takes a path\. Received: source="):
            check_paths({"out": "a", "source": value})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((9, 8, 3), np.uint8), "ndarray of 9 x 8 x 3, uint8"),
        (np.float32(2), repr(np.float32(2))),
        (None, "None"),
        ("two  words", "'two  words'"),
        ([np.zeros((2, 2))], "[array([[0., 0.], [0., 0.]])]"),
        (b"x" * 1000, f"b'{'x' * 98}…"),
    ],
)
def test_a_value_is_shown_shortly(value, text):
    assert brief(value) == text


def test_errors_show_no_whole_arrays():
    array = np.ones((40, 40, 3), np.uint8)
    for check in check_paths, check_texts:
        with pytest.raises(ConfigError, match=r"Received: pictures=ndarray of 40 x 40 x 3, uint8$"):
            check({"pictures": array})
    with pytest.raises(ConfigError, match=r"Received: --n ndarray of 40 x 40 x 3, uint8$"):
        check_number("--n", array, 1)
