"""Tests of `cbsn.napari_plugin.denoise_widget`, and of the choices in it."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtWidgets import QFileDialog

import cbsn
from cbsn.errors import ModelError
from cbsn.images.stacks.stack import array_stack
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import denoise_stack
from cbsn.napari_plugin import choices, denoise_widget
from cbsn.napari_plugin.choices import LayerChoice
from cbsn.napari_plugin.denoise_widget import DenoiseWidget
from cbsn.napari_plugin.denoising import ModelFacts
from cbsn.napari_plugin.sample_data import noisy_and_clean

NOISY, _ = noisy_and_clean((3, 40, 48))


class StandIn:
    """In the place of the process: subtracts 10, and counts its calls."""

    def __init__(self):
        self.calls = []
        self.model = None
        self.error = None
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def facts(self, model, tile):
        self.model = model, tile
        if self.error:
            raise self.error
        return ModelFacts()

    def denoise(self, model, tile, planes, scale, on_tile):
        assert (model, tile) == self.model
        self.calls.append(len(planes))
        self.started.set()
        self.go_on.wait(60)
        on_tile(1 / 2)
        on_tile(1 / 2)
        return planes - 10


@pytest.fixture
def process(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(denoise_widget, "process", stand_in)
    return stand_in


@pytest.fixture
def widget(viewer, qtbot, told):
    made = DenoiseWidget(PublicOnlyProxy(viewer))  # as napari makes it
    qtbot.addWidget(made)
    return made


@pytest.fixture
def denoise(widget, qtbot):
    """Denoises, and waits until the widget is ready again."""

    def run():
        widget.denoise()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=60_000)

    return run


def choose(combo, text):
    combo.setCurrentIndex(combo.findText(text))


@pytest.mark.slow
def test_the_result_is_that_of_denoise_stack(viewer, widget, denoise):
    layer = viewer.add_image(
        NOISY, name="cells", scale=(2, 0.5, 0.5), colormap="green", metadata={"a": 1}
    )
    widget._model.setCurrentIndex(widget._model.findData("photo"))
    try:
        denoise()
    finally:
        denoise_widget.process.close()
    result = viewer.layers[1]
    denoiser = cbsn.load("photo")
    expected = denoise_stack(array_stack(NOISY, "TYX"), [denoiser], StackOptions())
    # Computed in other groups, a value may be rounded otherwise.
    assert np.abs(result.data.astype(int) - expected).max() <= 1
    assert result.data.dtype == np.uint16
    assert result.name == "cells denoised"
    assert viewer.layers.selection.active is result
    np.testing.assert_array_equal(result.scale, layer.scale)
    np.testing.assert_array_equal(result.contrast_limits, layer.contrast_limits)
    assert result.colormap.name == "green"
    assert result.metadata == {"a": 1, "cbsn": {"model": "photo", "source": "cells"}}
    assert widget._status.text().startswith("Done: cells denoised.")


def test_the_strength_needs_no_new_run(viewer, widget, denoise, process, qtbot):
    viewer.add_image(NOISY)
    widget._strength.setValue(0.5)
    denoise()
    result = viewer.layers[1]
    np.testing.assert_array_equal(np.asarray(result.data), NOISY - 5)
    for strength, expected in (0.2, NOISY - 2), (0, NOISY), (1, NOISY - 10):
        before = result.data
        widget._strength.setValue(strength)
        qtbot.waitUntil(lambda before=before: result.data is not before)
        np.testing.assert_array_equal(np.asarray(result.data), expected)
    assert process.calls == [3]


def test_the_slider_is_that_of_the_selected_result(viewer, widget, denoise, process, qtbot):
    layer = viewer.add_image(NOISY)
    denoise()
    first = viewer.layers.selection.active
    denoise()
    second = viewer.layers.selection.active
    widget._strength.setValue(0.5)
    qtbot.waitUntil(lambda: not isinstance(second.data, np.ndarray))
    viewer.layers.selection.active = first
    assert widget._strength.value() == 1
    assert widget._layer.layer() is layer  # results are not taken for the next source
    assert LayerChoice(viewer, skipped=denoise_widget.results).layer() is layer
    viewer.layers.selection.active = second
    assert widget._strength.value() == 0.5
    widget._strength.setValue(1)
    viewer.layers.remove(second)
    qtbot.wait(3 * denoise_widget._WAIT_MS)  # nothing happens, and nothing fails


def test_the_current_plane(viewer, widget, denoise, process):
    layer = viewer.add_image(np.stack([NOISY, NOISY + 7]), scale=(1, 3, 1, 1))
    viewer.dims.set_point((0, 1), (1, 6))
    choose(widget._planes, "Current plane only")
    denoise()
    result = viewer.layers[1]
    assert process.calls == [1]
    np.testing.assert_array_equal(result.data, NOISY[None, None, 2] + 7 - 10)
    np.testing.assert_array_equal(result.extent.world[0], [1, 6, 0, 0])
    assert layer.visible


def test_layers_that_shine_through_are_hidden(viewer, denoise, process):
    layer = viewer.add_image(NOISY, blending="additive")
    denoise()
    assert not layer.visible and viewer.layers[1].visible


def test_the_result_lies_above_its_source(viewer, widget, denoise, process, qtbot):
    layer = viewer.add_image(NOISY)
    other = viewer.add_image(NOISY)
    viewer.layers.selection.active = layer
    denoise()
    assert [*viewer.layers][::2] == [layer, other]
    viewer.layers.selection.active = other
    widget.denoise()
    assert widget.is_running
    viewer.layers.remove(other)  # meanwhile
    qtbot.waitUntil(lambda: not widget.is_running)
    assert len(viewer.layers) == 3


def test_cancelling_leaves_nothing(viewer, widget, denoise, process, qtbot):
    viewer.add_image(NOISY)
    process.go_on.clear()
    widget.denoise()
    assert not widget._run.isEnabled() and widget._cancel.isEnabled()
    qtbot.waitUntil(process.started.is_set)
    qtbot.waitUntil(lambda: widget._status.text() == "Denoising…")
    widget.cancel()
    assert widget._status.text() == "Stopping…"
    process.go_on.set()
    qtbot.waitUntil(lambda: not widget.is_running)
    assert len(viewer.layers) == 1 and widget._status.text() == "Cancelled."
    denoise()
    assert len(viewer.layers) == 2


def test_errors_are_told_and_the_widget_goes_on(viewer, widget, denoise, process, told):
    values = NOISY.astype(np.float32)
    values[1, 3, 3] = np.nan
    viewer.add_image(values, contrast_limits=(0, 1))
    process.error = ModelError("No model at x.")
    denoise()
    assert told.pop() == ("error", "No model at x.")
    process.error = None
    denoise()
    kind, text = told.pop()
    assert kind == "error" and text.startswith("The layer holds values that are not finite")
    assert "tick “Fill missing values” under “Advanced”" in text
    assert widget._status.text() == text
    assert len(viewer.layers) == 1 and widget._run.isEnabled()
    widget._fill.setChecked(True)
    denoise()
    assert np.isfinite(viewer.layers[1].data).all() and told == []


def test_layers_that_cannot_be_denoised(viewer, widget, denoise, process, told):
    denoise()
    assert told.pop()[1].startswith("Open an image first")
    viewer.add_labels(np.zeros((8, 8), int))
    denoise()
    assert told.pop()[1].startswith("Open an image first")
    assert process.calls == []


def test_options_reach_the_process(viewer, widget, denoise, process):
    viewer.add_image(NOISY[0])
    assert widget._tile.text() == "auto"
    widget._tile.setValue(256)
    widget._model.setCurrentIndex(1)
    denoise()
    assert process.model == ("photo", 256)


def test_layers_to_choose_from(viewer, widget):
    choice = widget._layer
    assert choice.layer() is None
    first, second = viewer.add_image(NOISY, name="a"), viewer.add_image(NOISY, name="b")
    viewer.add_points([[0, 0, 0]])
    assert [choice.itemText(i) for i in range(choice.count())] == ["b", "a"]
    assert choice.layer() is second
    viewer.layers.selection.active = first
    assert choice.layer() is first
    first.name = "c"
    assert choice.currentText() == "c"
    viewer.layers.remove(first)
    assert choice.layer() is second


def test_folders_of_models(widget, tmp_path, monkeypatch, told, qtbot, viewer):
    combo, run = widget._model, tmp_path / "run"
    (run / "last").mkdir(parents=True)
    answers = [str(tmp_path), "", str(run)]
    ask = lambda *args: answers.pop(0)  # noqa: E731
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", ask)
    last = combo.count() - 1
    assert combo.model() == "photo-large"
    combo.activated.emit(last)
    assert "holds no model" in told.pop()[1] and combo.model() == "photo-large"
    combo.activated.emit(last)  # cancelled
    assert combo.model() == "photo-large"
    (run / "last" / "recipe.json").touch()
    combo.activated.emit(last)
    assert (combo.model(), combo.currentText()) == (str(run), "run")
    other = DenoiseWidget(viewer)
    qtbot.addWidget(other)
    assert other._model.findData(str(run)) > 0
    choices.models().add(run)
    assert other._model.model() == str(run)


SCRIPT = """
import time, napari
from qtpy.QtWidgets import QApplication
from cbsn.napari_plugin.denoise_widget import DenoiseWidget
from cbsn.napari_plugin.sample_data import noisy_and_clean
viewer = napari.Viewer()
viewer.add_image(noisy_and_clean((2, 40, 48))[0])
widget = DenoiseWidget(viewer)
viewer.window.add_dock_widget(widget)
widget._model.setCurrentIndex(1)
widget.denoise()
while widget.is_running:
    QApplication.processEvents()
    time.sleep(0.01)
assert len(viewer.layers) == 2, widget._status.text()
viewer.screenshot()
print("done")
viewer.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a virtual display")
def test_in_a_window_with_opengl():
    if not shutil.which("xvfb-run"):
        pytest.skip("needs xvfb-run")
    command = ["xvfb-run", "-a", "-s", "-screen 0 1200x900x24", sys.executable, "-c", SCRIPT]
    environment = {**os.environ}
    environment.pop("QT_QPA_PLATFORM", None)
    root = Path(cbsn.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    if "OpenGL" in done.stderr and done.returncode:
        pytest.skip("OpenGL is missing")
    assert done.stdout.strip() == "done", done.stderr


def test_deleting_the_widget_ends_the_work(viewer, process, qtbot, told):
    viewer.add_image(NOISY)
    process.go_on.clear()
    widget = DenoiseWidget(viewer)
    widget.denoise()
    assert process.started.wait(60)
    worker, finished = widget._worker, []
    worker.finished.connect(lambda: finished.append(True))
    widget.deleteLater()
    qtbot.waitUntil(lambda: choices.is_deleted(widget))
    process.go_on.set()
    qtbot.waitUntil(lambda: bool(finished), timeout=60_000)
    assert worker.abort_requested
    # If it had just ended.
    widget._take(viewer.layers[0], "photo", None, [0], (), None, "an error")
    widget._finish()
    assert len(viewer.layers) == 1 and told == []
