"""Cases of a test of which a few stand for all: those run first, the others with slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(cases: Iterable[Any], *fast: Any) -> list[Any]:
    """Returns the cases of `pytest.mark.parametrize`, marked as slow unless they are `fast`.

    A case of one argument is its value, of several a tuple of theirs.

    Raises:
        ValueError: if one of `fast` is not a case.
    """
    cases = list(cases)
    if unknown := [case for case in fast if case not in cases]:
        raise ValueError(f"What is to be fast must be among the cases. Received: {unknown}")
    return [case if case in fast else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
