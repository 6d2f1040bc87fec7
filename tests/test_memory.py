from pathlib import Path

import pytest

from cbsn.devices import peak_memory, reset_peak_memory

CAN_FORGET = Path("/proc/self/clear_refs").exists()


def test_the_peak_grows_with_what_is_used():
    reset_peak_memory()
    before = peak_memory()
    # What is resident now counts already; where the peak is an earlier one, the block must top it.
    block = bytearray(b"x") * int((0.25 if CAN_FORGET else before + 0.25) * 2**30)
    assert peak_memory() >= before + 0.2
    del block
    assert peak_memory() >= before + 0.2


def test_the_peak_can_be_forgotten():
    if not CAN_FORGET:
        pytest.skip("only Linux can forget it")
    block = bytearray(b"x") * 2**28
    before = peak_memory()
    del block
    reset_peak_memory()
    assert peak_memory() <= before - 0.2
