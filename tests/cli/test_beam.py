import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from cbsn.cli import beam as command
from cbsn.errors import ConfigError
from cbsn.images.image_files import Picture, read_picture, write_picture

ROOT = Path(__file__).resolve().parents[2]
NUMBER = 40


@pytest.fixture
def start(tmp_path):
    """Starts the command as a user would, in an empty folder; returns the process."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    def run(*flags):
        return subprocess.Popen(
            [sys.executable, "-m", "cbsn", "beam", *map(str, flags)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "ended by SIGTERM\n")],
)
def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(
    start, model, tmp_path, sent, status, told
):
    pixels = np.random.default_rng(0).integers(256, size=(300, 400, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for number in range(NUMBER):
        write_picture(tmp_path / "in" / f"{number:02d}.tif", Picture(pixels, "TIFF"))
    (tmp_path / "in" / "text.png").write_text("no picture")
    flags = ("--modelpath", model, "--input", "in", "--output", "out", "--tile", "128")

    process = start(*flags)
    while process.poll() is None and not list(tmp_path.glob("out/[0-9]*.tif")):
        time.sleep(0.005)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (status, told)
    done = list(tmp_path.glob("out/*.tif"))
    assert 0 < len(done) < NUMBER
    for result in done:
        assert read_picture(result).pixels.shape == (300, 400, 3)

    process = start(*flags, "--direct_num_workers", "1")
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (1, "")
    assert f"pictures to denoise, {len(done)} done before" in output
    assert (
        f"{NUMBER - len(done)} denoised, {len(done)} were already done, 1 failed, in out" in output
    )
    assert "The reasons are in out/failed" in output
    assert len(list(tmp_path.glob("out/*.tif"))) == NUMBER
    [shard] = (tmp_path / "out" / "failed").iterdir()
    assert json.loads(shard.read_text())["source"] == "in/text.png"


def test_beam_is_an_extra(monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[beam\]'"):
        command.main(None)


def test_flags_are_the_commands_or_beams():
    own = {
        flag.lstrip("-")
        for action in command.make_parser()._actions
        for flag in action.option_strings
    }
    assert "modelpath" in own
    assert not own & PipelineOptions([]).get_all_options().keys()
    required = ["--modelpath", "m", "--input", "a", "b", "--output", "o"]
    flags = command.make_parser().parse_args(
        [*required, "--runner", "X", "--tile", "32", "--region=r"]
    )
    assert (flags.inputs, flags.tile) == (["a", "b"], "32")
    assert (flags.normalize, flags.dtype, flags.select) == ("auto", "same", None)
    assert flags.beam_flags == ["--runner", "X", "--region=r"]
