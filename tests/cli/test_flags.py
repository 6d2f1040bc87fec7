import pytest

from cbsn.cli.flags import add_denoiser
from cbsn.cli.parser import new_parser

SCRIPT = """
    import os, sys
    sys.argv = ["command", {arguments}]
    from cbsn.cli import flags as cli, parser as parsers
    from cbsn.errors import ConfigError
    parser = parsers.new_parser("Does something.")
    parser.add_argument("--gpu", nargs="?", const="all", default=None)

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


def test_unknown_flags_are_refused_in_one_line(command):
    result = command("pass", "'--colour'")
    assert result.returncode == 2
    assert result.stderr == "error: unrecognized arguments: --colour. See command --help\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("PermissionError(13, 'Permission denied', 'locked/a')", "locked/a: Permission denied"),
        ("FileExistsError(17, 'File exists', b'a', None, b'b')", "a: b: File exists"),
        ("OSError(28, 'No space left on device')", "No space left on device"),
        ("OSError(36, 'File name too long', 'a\\nb')", r"a\nb: File name too long"),
    ],
)
def test_what_the_system_refuses_is_one_line(command, error, line):
    result = command(f"raise {error}")
    assert (result.returncode, result.stderr) == (2, f"error: {line}\n")


def test_what_a_library_raises_as_if_it_was_the_system_is_a_bug(command):
    result = command("raise OSError('HDF5 lost its way')")
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"sigma \u753b \udcff"),
        ("cp1252", r"sigma \u753b \udcff"),
        ("utf-8", r"σ 画 \udcff"),
    ],
)
@pytest.mark.parametrize("tensorflow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_output_never_fails_for_its_encoding(command, monkeypatch, encoding, shown, tensorflow):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    body = """text = chr(0x3c3) + " " + chr(0x753b) + " " + chr(0xdcff)
        print(text); parser.description = text; parser.print_help(); raise ConfigError(text)"""
    result = command(body, tensorflow=tensorflow)
    assert result.returncode == 2, result.stderr
    assert result.stdout.splitlines()[0] == shown and shown in result.stdout.partition("usage")[2]
    # In an error, names that cannot be printed are written in other characters in any case.
    assert result.stderr.endswith(f"error: {shown}\n")


def test_notes_are_shown_once_each(command):
    body = """import warnings; from cbsn.errors import CbsnWarning; from tqdm import tqdm
        for step in tqdm(range(3), mininterval=0, ncols=40):
            for text in ("skipped: a\\nb.png", f"step {step // 2}"):
                warnings.warn(text, CbsnWarning)"""
    result = command(body)
    assert result.returncode == 0
    notes = [part for part in result.stderr.replace("\r", "\n").split("\n") if "note:" in part]
    assert notes == [r"note: skipped: a\nb.png", "note: step 0", "note: step 1"]


def test_other_warnings_stay_as_they_are(command):
    result = command("import warnings; warnings.warn('mind the gap')")
    assert "UserWarning: mind the gap" in result.stderr and "note:" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--seed", "-1"], "argument --seed: takes a whole number from 0 to"),
        (["--seed", "1e3"], "argument --seed: takes a whole number from 0 to"),
        (
            ["--channel", "0"],
            "argument --channels/--channel: takes a whole number from 1",
        ),
        (
            ["--num_block", "9999999999"],
            "argument --modules/--num_block: takes a whole number",
        ),
        (["--tile", "-1"], "argument --tile: tile is auto, the side"),
        (["--tile", "nan"], "argument --tile: tile is auto, the side"),
        (["--strength", "1.1"], "argument --strength: takes a number from 0 to 1. Received: 1.1"),
        (["--color_strength", "nan"], "argument --color_strength: takes a number from 0 to 1"),
        (["--r"], "ambiguous option: --r could match"),
    ],
)
def test_numbers_have_ranges(capsys, flags, line):
    parser = new_parser("Does something.")
    add_denoiser(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(flags)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"error: {line}")
    assert error.count("\n") == 1


def test_tensorflow_starts_silently(run_python, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    script = SCRIPT.format(body="print('tensorflow' in sys.modules)", arguments="", tensorflow=True)
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.parametrize(("arguments", "shown"), [("", False), ("'--verbosity', '0'", True)])
def test_information_is_logged_on_request(command, arguments, shown):
    result = command("from absl import logging; logging.info('a detail')", arguments)
    assert ("a detail" in result.stderr) == shown, result.stderr


@pytest.mark.parametrize("tensorflow", [True, False])
def test_a_tensorflow_that_cannot_be_imported_gives_one_line(run_python, tensorflow):
    """As with too little memory to map its libraries."""
    script = SCRIPT.format(body="cli.start_tensorflow()", arguments="", tensorflow=tensorflow)
    result = run_python(
        """
    import sys
    class Failing:
        def find_spec(name, path=None, target=None):
            if name == "tensorflow":
                raise ImportError("libtensorflow_cc.so.2: failed to map segment")
    sys.meta_path.insert(0, Failing)
    """
        + script
    )
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: TensorFlow cannot be imported (libtensorflow_cc.so.2: failed to map segment). "
    )
    assert result.stderr.count("\n") == 1
