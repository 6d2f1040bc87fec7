"""Tests of `cbsn.napari_plugin.train_widget`."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import cbsn
from cbsn.napari_plugin import choices, train_widget, training
from cbsn.napari_plugin.denoising import Cancelled
from cbsn.napari_plugin.sample_data import noisy_and_clean
from cbsn.napari_plugin.train_widget import TrainWidget

NOISY, _ = noisy_and_clean((6, 72, 72))

# Trains nothing until it is stopped, and leaves what looks like a model.
STAND_IN = """
import pathlib, sys
folder = pathlib.Path(sys.argv[2])
assert pathlib.Path(sys.argv[1]).is_file()
print("precision float32")
print(" 50%|#####     | 2/4 [00:01<00:01,  2.00step/s, loss=0.1]", file=sys.stderr)
if sys.argv[3] == "other":
    sys.exit("error: The run a was started with b. Use another --name, or --no-resume.")
if sys.argv[3] == "fail":
    sys.exit("error: it cannot be learned")
sys.stdin.read()
if sys.argv[3] == "save":
    (folder / "last").mkdir(parents=True)
    (folder / "last" / "recipe.json").touch()
print("stopped")
sys.exit(75)
"""


@pytest.fixture
def widget(viewer, qtbot, told, tmp_path):
    made = TrainWidget(viewer)
    made._parent = object()  # which napari's dock sets to itself
    qtbot.addWidget(made)
    made._models_folder.setText(str(tmp_path / "models"))
    yield made
    made._quit()
    qtbot.waitUntil(lambda: not made.is_running, timeout=60_000)


@pytest.fixture
def commands(monkeypatch):
    """What is run in the place of the training; set `how` to change what it does."""

    class Commands:
        how = "save"
        asked: list = []  # noqa: RUF012

    def command(file, folder, steps):
        Commands.asked.append((file.name, folder, steps))
        return [sys.executable, "-c", STAND_IN, str(file), str(folder), Commands.how]

    Commands.asked = []
    monkeypatch.setattr(training, "training_command", command)
    return Commands


def log(widget):
    return widget._log.toPlainText()


def wait_for(qtbot, condition):
    qtbot.waitUntil(condition, timeout=60_000)


def test_a_model_is_chosen_when_it_is_trained(viewer, widget, commands, told, qtbot, tmp_path):
    viewer.add_image(NOISY, name="My cells (1)")
    assert widget._name.text() == "n2v-my-cells-1"
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    wait_for(qtbot, lambda: widget._status.text() == "Step 2")
    assert "6 planes to learn from" in log(widget) and "50%" not in log(widget)
    assert widget._stop.isEnabled() and not widget._run.isEnabled()
    widget.train()  # nothing, as one runs
    widget.stop()
    wait_for(qtbot, lambda: not widget.is_running)
    folder = tmp_path / "models" / "n2v-my-cells-1"
    assert commands.asked == [("n2v-my-cells-1.tif", folder, None)]
    assert choices.models().folders == [str(folder)]
    assert told == [("info", "The model n2v-my-cells-1 is trained, and chosen under “Denoise”.")]
    assert widget._run.isEnabled() and widget._files is None


def test_the_clock_stops_a_training(viewer, widget, commands, qtbot):
    viewer.add_image(NOISY)
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    assert widget._clock.isActive() and widget._clock.interval() == 10 * 60_000
    widget._clock.setInterval(0)
    wait_for(qtbot, lambda: not widget.is_running)
    assert "The time is up." in log(widget) and "stopped" in log(widget)


def test_a_number_of_steps(viewer, widget, commands, qtbot):
    viewer.add_image(NOISY)
    widget._unit.setCurrentText("steps")
    widget._limit.setValue(4)
    widget.train()
    wait_for(qtbot, lambda: widget._status.text() == "Step 2 of 4")
    assert (widget._bar.value(), widget._bar.maximum()) == (2, 4)
    assert commands.asked[0][2] == 4 and not widget._clock.isActive()
    widget.stop()
    wait_for(qtbot, lambda: not widget.is_running)


def test_stopped_before_anything_is_saved(viewer, widget, commands, told, qtbot):
    viewer.add_image(NOISY)
    commands.how = "nothing"
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    widget.stop()
    wait_for(qtbot, lambda: not widget.is_running)
    assert widget._status.text() == "Stopped before there was anything to save." and told == []


def test_stopping_twice_ends_at_once(viewer, widget, commands, qtbot):
    viewer.add_image(NOISY)
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    widget._process.stop = lambda: None  # as if it did not react
    widget.stop()
    widget.stop()
    wait_for(qtbot, lambda: not widget.is_running)
    assert "stopped" not in log(widget)


def test_closing_the_dock_saves_and_stops(viewer, widget, commands, told, qtbot):
    from qtpy.QtWidgets import QDockWidget

    viewer.add_image(NOISY)
    dock = QDockWidget()
    dock.setWidget(widget)
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    widget.setParent(None)  # as napari does
    wait_for(qtbot, lambda: not widget.is_running)
    assert "stopped" in log(widget)
    assert [kind for kind, _ in told] == ["info"] and len(choices.models().folders) == 1


def test_deleting_the_widget_saves_and_stops(viewer, commands, qtbot, tmp_path):
    from qtpy.QtWidgets import QWidget

    viewer.add_image(NOISY)
    parent = QWidget()
    widget = TrainWidget(viewer)
    widget.setParent(parent)
    widget._models_folder.setText(str(tmp_path / "models"))
    widget.train()
    wait_for(qtbot, lambda: "precision" in log(widget))
    process, folder, files = widget._process._process, widget._folder, Path(widget._files.name)
    parent.deleteLater()
    wait_for(qtbot, lambda: choices.is_deleted(widget))
    wait_for(qtbot, lambda: process.poll() == 75 and not files.exists())
    assert choices.is_model_folder(folder)


def test_deleting_the_widget_while_the_planes_are_written(
    viewer, commands, qtbot, tmp_path, monkeypatch
):
    begun, outcomes = threading.Event(), []

    def write(planes, file, is_stopped):
        begun.set()
        while not is_stopped():
            time.sleep(0.01)
        outcomes.append("stopped")
        raise Cancelled

    monkeypatch.setattr(training, "write_planes", write)
    viewer.add_image(NOISY)
    widget = TrainWidget(viewer)
    widget._models_folder.setText(str(tmp_path / "models"))
    widget.train()
    assert begun.wait(60)
    widget.deleteLater()
    wait_for(qtbot, lambda: bool(outcomes))
    widget._start(tmp_path / "a.tif", 6)  # if it had just ended
    assert not commands.asked


def test_a_training_that_fails(viewer, widget, commands, told, qtbot):
    viewer.add_image(NOISY)
    commands.how = "fail"
    widget.train()
    wait_for(qtbot, lambda: not widget.is_running)
    assert told == [("error", "The training failed: it cannot be learned")]
    assert widget._run.isEnabled()


def test_a_name_of_another_run(viewer, widget, commands, told, qtbot, tmp_path):
    viewer.add_image(NOISY, name="cells")
    commands.how = "other"
    widget.train()
    wait_for(qtbot, lambda: not widget.is_running)
    (text,) = [text for _, text in told]
    assert str(tmp_path / "models" / "n2v-cells") in text and "another name or folder" in text
    assert "--" not in text.replace(str(tmp_path), "") and "--no-resume" in log(widget)


def test_what_cannot_be_trained(viewer, widget, commands, told, qtbot, tmp_path, monkeypatch):
    widget.train()
    assert told.pop()[1].startswith("Open an image first")
    layer = viewer.add_image(np.full((2, 8, 8), np.nan, np.float32), contrast_limits=(0, 1))
    for name in ("", "a/b", ".hidden"):
        widget._name.setText(name)
        widget.train()
        assert told.pop()[1] == "Give the model a name that a folder can have."
    widget._name.setText("a")
    widget.train()
    wait_for(qtbot, lambda: not widget.is_running)
    assert told.pop()[1].endswith(
        "infinity). Fill them first, or train on the file: cbsn train FILE --nan fill."
    )
    layer.data = NOISY
    (tmp_path / "file").touch()
    widget._models_folder.setText(str(tmp_path / "file"))
    widget.train()
    assert told.pop()[0] == "error" and not widget.is_running
    assert commands.asked == []


def test_stopped_while_the_planes_are_written(viewer, widget, commands, qtbot):
    viewer.add_image(NOISY)
    widget.train()
    widget.stop()
    wait_for(qtbot, lambda: not widget.is_running)
    assert widget._status.text() == "Stopped before the training began." and not commands.asked


def test_a_name_of_the_user_stays(viewer, widget, qtbot):
    viewer.add_image(NOISY, name="one")
    widget._name.selectAll()
    qtbot.keyClicks(widget._name, "mine")
    viewer.add_image(NOISY, name="two")
    assert widget._layer.currentText() == "two" and widget._name.text() == "mine"


@pytest.mark.slow
def test_a_real_training(viewer, widget, monkeypatch, told, qtbot):
    original = train_widget.training.training_command
    small = ["--channels", "4", "--depth", "1", "--batch_size", "2", "--print_every", "1"]
    monkeypatch.setattr(training, "training_command", lambda *args: [*original(*args), *small])
    viewer.add_image(NOISY, name="cells")
    widget._unit.setCurrentText("steps")
    widget._limit.setValue(1_000_000)
    widget.train()
    qtbot.waitUntil(lambda: "step 3" in log(widget) or not widget.is_running, timeout=300_000)
    widget.stop()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=300_000)
    assert [kind for kind, _ in told] == ["info"], log(widget)
    (folder,) = choices.models().folders
    denoise = cbsn.load(folder)
    assert denoise.recipe.name == "n2v-unet" and denoise.scaling.channels[0].mean > 100
