"""Tests of `cbsn.signals`."""

import signal
import sys
import threading

import pytest

from cbsn.signals import Ended, ending_like_ctrl_c

SCRIPT = """
    import os, signal, sys, time
    sys.argv = ["command"]
    from cbsn.cli import flags as cli, parser as parsers

    def main(flags):
        try:
            {body}
        finally:
            print("cleaned up")

    cli.run(main, parsers.new_parser("Does something."), tensorflow=False)
"""
unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@unix
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_command_that_is_ended_cleans_up(run_python, name, status):
    process = run_python(SCRIPT.format(body=f"os.kill(os.getpid(), signal.{name}); time.sleep(9)"))
    assert process.returncode == status
    assert process.stdout == "cleaned up\n"
    assert process.stderr == f"ended by {name}\n"


@unix
def test_a_second_signal_ends_it_at_once(run_python):
    body = """
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)"""
    process = run_python(SCRIPT.format(body=body))
    assert process.returncode == -signal.SIGTERM
    assert "cleaned up" not in process.stdout


@unix
def test_what_is_ignored_or_handled_stays_so():
    for handler in signal.SIG_IGN, signal.default_int_handler:
        signal.signal(signal.SIGTERM, handler)
        with ending_like_ctrl_c():
            assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTERM) is handler


@unix
def test_handlers_are_as_before():
    with pytest.raises(Ended, match="SIGTERM"), ending_like_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_are_left_alone():
    found = []

    def enter():
        with ending_like_ctrl_c():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
