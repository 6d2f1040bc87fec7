import os
import signal
import threading

import pytest

from cbsn.training.stop_signals import StopSignals


@pytest.mark.parametrize("number", StopSignals.SIGNALS)
def test_a_signal_leaves_a_note(number, capfd):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received == ""
        os.kill(os.getpid(), number)
        assert signals.received == number.name
    assert signal.getsignal(number) == before
    assert f"{number.name}: finishing the step" in capfd.readouterr().err


def test_a_second_signal_acts_as_before():
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == "SIGTERM"


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == ""
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_get_none():
    seen = []

    def work():
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]
