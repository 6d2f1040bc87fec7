import pytest

from cbsn.errors import plain_reason


class TensorFlowError(Exception):
    message = "{{function_node __wrapped__SaveV2}} a/b;\n No space left [Op:SaveV2] [[{{node x}}]]"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("as it is"), "as it is"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (RuntimeError("two\n  lines"), "two lines"),
        (TensorFlowError(), "a/b; No space left"),
    ],
)
def test_a_reason_is_one_plain_line(error, text):
    assert plain_reason(error) == text
