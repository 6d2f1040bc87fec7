"""The console command itself."""

import importlib
import sys

import pytest

import cbsn
from cbsn.__main__ import main
from cbsn.cli import COMMANDS


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cbsn", *arguments])
    main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_the_commands(monkeypatch, capsys, arguments):
    _run(monkeypatch, *arguments)
    text = capsys.readouterr().out
    assert text.startswith("usage: cbsn COMMAND")
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_version(monkeypatch, capsys):
    _run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"cbsn {cbsn.__version__}\n"


def test_unknown_commands(monkeypatch, capsys):
    for name, advice in (("denois", "did you mean cbsn denoise?"), ("xyz", "see cbsn --help")):
        with pytest.raises(SystemExit) as ended:
            _run(monkeypatch, name)
        expected = f"error: there is no command {name!r}; {advice}\n"
        assert (ended.value.code, capsys.readouterr().err) == (2, expected)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_on_a_screen_and_is_complete_on_request(name):
    parser = importlib.import_module(f"cbsn.cli.{name}").make_parser()
    short, full = parser.format_help(), parser.format_full_help()
    assert len(short.splitlines()) <= 66
    for action in parser._actions:
        for flag in action.option_strings:
            shown = action.help != "==SUPPRESS==" and action.dest not in ("help", "help_all")
            assert not shown or flag in full


def test_help_and_import_wait_for_nothing_large(run_python):
    """Not even numpy, which takes a tenth of a second."""
    result = run_python(
        """
        import runpy, sys
        import cbsn
        large = {"numpy", "keras", "tensorflow", "scipy", "skimage", "matplotlib"}
        assert not large & {*sys.modules}
        sys.argv = ["cbsn", "--help"]
        runpy.run_module("cbsn", run_name="__main__")
        assert not large & {*sys.modules}
        assert len(dir(cbsn)) >= len(cbsn.__all__)
        """
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_commands_needs_no_tensorflow(run_python, name):
    result = run_python(
        f"""
        import importlib, sys
        importlib.import_module("cbsn.cli.{name}").make_parser().format_help()
        assert not {{"keras", "tensorflow", "matplotlib"}} & {{*sys.modules}}
        """
    )
    assert result.returncode == 0, result.stderr
