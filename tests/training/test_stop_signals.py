import signal
import threading

import pytest

from cbsn.training.loop import StopSignals


class Ended(BaseException):
    """Raised by what stands in for the default handlers, which would end the tests."""


@pytest.fixture(autouse=True)
def before():
    """The handler of both signals before and after the block."""

    def end(number, frame):
        raise Ended(signal.Signals(number).name)

    found = {number: signal.signal(number, end) for number in StopSignals.SIGNALS}
    yield end
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", StopSignals.SIGNALS)
def test_a_signal_leaves_a_note(number, before, capfd):
    with StopSignals() as signals:
        assert signals.received == ""
        signal.raise_signal(number)
        assert signals.received == number.name
    assert signal.getsignal(number) == before
    assert f"{number.name}: finishing the step" in capfd.readouterr().err


def test_a_second_signal_acts_as_before():
    with pytest.raises(Ended, match="SIGINT"), StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert signals.received == "SIGTERM"


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
    assert signals.received == ""
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_other_threads_get_none():
    seen = []

    def work():
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]
