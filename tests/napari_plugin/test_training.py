"""Tests of `cbsn.napari_plugin.training` and `train_process`."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import tifffile
from napari.layers import Image

from cbsn.errors import ImageError
from cbsn.images.stacks.opening import is_stack, open_stacks
from cbsn.napari_plugin import processes, training
from cbsn.napari_plugin.denoising import Cancelled
from cbsn.napari_plugin.layers import layer_planes
from cbsn.napari_plugin.training import TrainingProcess, training_command, write_planes

VALUES = np.random.default_rng(1).integers(100, 900, (3, 2, 16, 20)).astype(np.uint16)


@pytest.mark.parametrize(
    ("values", "axes"),
    [
        (VALUES, "TYX"),
        (VALUES[0, 0], "YX"),
        (VALUES.astype(np.float16), "TYX"),
        (np.arange(2 * 8 * 9 * 3, dtype=np.uint8).reshape(2, 8, 9, 3), "TYXS"),
    ],
)
def test_written_planes_are_a_stack(tmp_path, values, axes):
    path = tmp_path / "planes.tif"
    planes = layer_planes(Image(values, rgb="S" in axes))
    assert write_planes(planes, path) == planes.count
    assert is_stack(path)  # and so trained on as one
    with open_stacks(path) as (stack,):
        assert stack.layout.axes == axes and stack.layout.planes == planes.count
        for number in range(planes.count):
            index = (number,) if "T" in axes else ()
            np.testing.assert_array_equal(stack.read(index), planes.read(number))


def test_a_large_layer_is_written_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_MOST_BYTES", 3 * 16 * 20 * 2 + 5)
    path = tmp_path / "planes.tif"
    assert write_planes(layer_planes(Image(VALUES)), path) == 3
    np.testing.assert_array_equal(tifffile.imread(path), VALUES.reshape(6, 16, 20)[::2])


def test_writing_is_stopped(tmp_path):
    stops = iter([False, True])
    planes = layer_planes(Image(VALUES))
    with pytest.raises(Cancelled):
        write_planes(planes, tmp_path / "planes.tif", lambda: next(stops))
    assert [*stops] == []


def test_missing_values_are_not_written(tmp_path):
    values = np.full((2, 8, 8), np.nan, np.float32)
    with pytest.raises(ImageError, match="not finite"):
        write_planes(layer_planes(Image(values)), tmp_path / "planes.tif")


def test_the_command(tmp_path):
    command = training_command(tmp_path / "a.tif", tmp_path / "run", 100)
    assert command[3:] == [
        *("train", str(tmp_path / "a.tif"), "--recipe", "n2v-unet"),
        *("--out", str(tmp_path / "run"), "--ema", "0.999", "--steps", "100"),
    ]
    assert training_command(tmp_path / "a.tif", tmp_path / "run", None) == command[:-2]


class Listener:
    """Keeps what a process says."""

    def __init__(self, folder, code):
        self.lines, self.steps, self.status = [], [], None
        self.ended, self.came = threading.Event(), threading.Event()
        command = [sys.executable, "-c", code]
        self.process = TrainingProcess(command, folder, self.line, self.step, self.end)

    def line(self, text):
        self.lines.append(text)
        self.came.set()

    def step(self, *steps):
        self.steps.append(steps)

    def end(self, status):
        self.status = status
        self.ended.set()


TALKS = r"""
import os, sys
from tqdm import tqdm
print("folder", os.getcwd())
for step in tqdm(range(3), unit="step", mininterval=0):
    tqdm.write(f"step {step + 1}: total 0.5")
for _ in tqdm(range(2), desc="planes", unit="plane", mininterval=0):
    pass
print("error: nothing", file=sys.stderr)
sys.exit(2)
"""


def test_lines_and_progress_of_a_process(tmp_path):
    listener = Listener(tmp_path, TALKS)
    assert listener.ended.wait(60)
    assert listener.lines == [
        f"folder {tmp_path}",
        *(f"step {step}: total 0.5" for step in (1, 2, 3)),
        "error: nothing",
    ]
    assert listener.steps[-1] == (3, 3)
    assert listener.status == 2


# In the place of `python -m cbsn`: waits to be interrupted.
WAITS = """
import runpy, signal, sys, time
def wait(*args, **kwargs):
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("saved", flush=True)
        {then}
        sys.exit(75)
runpy.run_module = wait
signal.signal(signal.SIGINT, signal.default_int_handler)
from cbsn.napari_plugin import train_process
train_process.main()
"""


def test_the_end_of_the_input_interrupts(tmp_path):
    listener = Listener(tmp_path, WAITS.format(then=""))
    assert listener.came.wait(60)
    listener.process.stop()
    listener.process.stop()  # nothing more
    assert listener.ended.wait(60)
    assert (listener.lines, listener.status) == (["begun", "saved"], 75)


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["no-such-command"], 2)])
def test_a_command_ends_while_its_input_is_open(arguments, status):
    command = processes.module_command("train_process", *arguments)
    with processes.start(command, stderr=subprocess.STDOUT) as process:
        assert (process.wait(60), process.stdin.closed) == (status, False)


def test_a_process_that_does_not_end_is_killed(tmp_path):
    listener = Listener(tmp_path, WAITS.format(then="time.sleep(600)"))
    assert listener.came.wait(60)
    listener.process.kill()
    assert listener.ended.wait(60)
    assert listener.status not in (0, 75)
    listener.process.kill()
