from cbsn.memory import peak_memory


def test_the_peak_grows_with_what_is_used():
    before = peak_memory()
    block = bytearray(b"x") * int((before + 0.25) * 2**30)
    assert peak_memory() >= before + 0.2
    del block
    assert peak_memory() >= before + 0.2
