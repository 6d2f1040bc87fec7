import pytest

SCRIPT = """
    import os, sys
    sys.argv = ["command", {arguments}]
    from cbsn import cli
    from cbsn.errors import ConfigError
    parser = cli.make_parser("Does something.")
    parser.add_argument("--gpu", nargs="?", const="all")

    def main(flags):
        {body}

    cli.run(main, parser, tensorflow={tensorflow})
"""


@pytest.fixture
def command(run_python):
    def run(body, arguments="", tensorflow=False):
        return run_python(SCRIPT.format(body=body, arguments=arguments, tensorflow=tensorflow))

    return run


@pytest.mark.parametrize(
    ("arguments", "value"), [("", "None"), ("'--gpu'", "all"), ("'--gpu', '0,1'", "0,1")]
)
def test_flags_have_argparses_forms(command, arguments, value):
    assert command("print(flags.gpu)", arguments).stdout.strip() == value


@pytest.mark.parametrize(("body", "status"), [("return None", 0), ("return 1", 1)])
def test_mains_status_is_the_exit_status(command, body, status):
    assert command(body).returncode == status


def test_errors_are_one_line(command):
    result = command("raise ConfigError('no such thing')")
    assert (result.returncode, result.stderr) == (2, "error: no such thing\n")


@pytest.mark.parametrize(
    ("error", "status", "stream"),
    [("TrainingError", 1, "stderr"), ("TrainingStopped", 75, "stdout"), ("DataError", 2, "stderr")],
)
def test_errors_have_a_status(command, error, status, stream):
    result = command(f"from cbsn import errors; raise errors.{error}('told')")
    assert result.returncode == status
    assert "told" in getattr(result, stream)
    assert "Traceback" not in result.stderr


def test_bugs_keep_their_traceback(command):
    result = command("raise RuntimeError('a bug')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "a bug" in result.stderr


def test_help_shows_defaults_that_say_something(command):
    shown = command("pass", "'--help'").stdout
    assert "--gpu" in shown
    assert "default: None" not in shown


def test_unknown_flags_are_refused(command):
    result = command("pass", "'--colour'")
    assert result.returncode == 2
    assert "--colour" in result.stderr


def test_tensorflow_starts_silently(run_python, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    script = SCRIPT.format(body="print('tensorflow' in sys.modules)", arguments="", tensorflow=True)
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.parametrize(("arguments", "shown"), [("", False), ("'--verbosity', '0'", True)])
def test_information_is_logged_on_request(command, arguments, shown):
    result = command("from absl import logging; logging.info('a detail')", arguments)
    assert ("a detail" in result.stderr) == shown, result.stderr
