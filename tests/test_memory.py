from pathlib import Path

import pytest

from cbsn.memory import peak_memory, reset_peak_memory


def test_the_peak_grows_with_what_is_used():
    before = peak_memory()
    block = bytearray(b"x") * int((before + 0.25) * 2**30)
    assert peak_memory() >= before + 0.2
    del block
    assert peak_memory() >= before + 0.2


def test_the_peak_can_be_forgotten():
    block = bytearray(b"x") * 2**28
    before = peak_memory()
    del block
    reset_peak_memory()
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux can forget it")
    assert peak_memory() <= before - 0.2
