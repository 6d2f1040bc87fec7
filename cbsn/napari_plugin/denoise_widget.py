"""The widget that denoises a layer."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider

from cbsn.napari_plugin.choices import (
    LayerChoice,
    ModelChoice,
    form,
    is_deleted,
    timer,
    unwrapped,
)
from cbsn.napari_plugin.denoise_process import DenoiseProcess
from cbsn.napari_plugin.denoising import (
    Cancelled,
    Result,
    check_memory,
    denoise_planes,
    explain,
    measure_scale,
    own_warnings,
    results,
)
from cbsn.napari_plugin.layers import (
    LayerPlanes,
    NotFiniteError,
    current_index,
    layer_planes,
    settings_of_result,
)

_WHOLE, _CURRENT = "Whole layer", "Current plane only"
_WAIT_MS = 40  # from the last move of the slider until the result changes
_SHOW_MS = 100  # between updates of the progress bar

process = DenoiseProcess()
"""Denoises for all widgets, so a model is loaded once."""


class DenoiseWidget(QWidget):
    """Denoises a layer in a thread; its strength can be changed afterwards.

    Args:
        viewer: napari's.
    """

    def __init__(self, viewer: Viewer):
        super().__init__()
        self._viewer = viewer = unwrapped(viewer)
        self._worker: Any = None
        self._step = 0.0, ""  # the share that is done, and what is being done
        self._build()
        self._ticking = timer(self, _SHOW_MS, self._show_progress)
        self._waiting = timer(self, _WAIT_MS, self._apply_strength)
        self._waiting.setSingleShot(True)
        self._shown: Callable[[], Any] = lambda: None  # a weak reference to the result's layer
        viewer.layers.selection.events.active.connect(self._select)
        self._select()

    def _build(self) -> None:
        self._layer = LayerChoice(self._viewer, skipped=results)
        self._model = ModelChoice()
        self._planes = QComboBox()
        self._planes.addItems([_WHOLE, _CURRENT])
        self._planes.setToolTip(
            "The current plane is the one that is shown. It is denoised as it is in the whole."
        )
        self._strength = _strength_slider()
        self._strength.setToolTip(
            "How much of the noise is removed. Move it at any time: the selected result follows."
        )
        self._strength.valueChanged.connect(lambda: self._waiting.start())
        top = form()
        top.addRow("Layer", self._layer)
        top.addRow("Model", self._model)
        top.addRow("Planes", self._planes)
        top.addRow("Strength", self._strength)

        self._tile = QSpinBox()
        self._tile.setRange(0, 8192)
        self._tile.setSingleStep(64)
        self._tile.setSpecialValueText("auto")
        self._tile.setToolTip("Side of the tiles in pixels. Smaller ones need less memory.")
        self._fill = QCheckBox("Fill missing values")
        self._fill.setToolTip("Replace NaN and infinity by what is around them.")
        self._own = QCheckBox("Scale by this layer")
        self._own.setToolTip(
            "Scale the values by this layer's own, also for a model that was trained on others."
        )
        inside = QWidget()
        rows = form(inside)
        rows.addRow("Tile", self._tile)
        rows.addRow(self._fill)
        rows.addRow(self._own)
        # Its icons would have the colour of text before napari's theme is there.
        advanced = QCollapsible("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
        advanced.toggled.connect(lambda open: advanced.setText(f"{'▸▾'[open]} Advanced"))
        advanced.setDuration(0)
        # A heading rather than a button, which napari would highlight while it is open.
        flat = "text-align: left; border: none; background: transparent; padding: 2px"
        advanced.toggleButton().setStyleSheet(f"QPushButton, QPushButton:checked {{{flat}}}")
        advanced.setContentsMargins(0, 0, 0, 0)
        advanced.addWidget(inside)

        self._run = QPushButton("Denoise")
        self._run.setDefault(True)
        self._run.clicked.connect(self.denoise)
        self._cancel = QPushButton("Cancel")
        self._cancel.setEnabled(False)
        self._cancel.clicked.connect(self.cancel)
        buttons = QHBoxLayout()
        buttons.addWidget(self._run, 2)
        buttons.addWidget(self._cancel, 1)
        self._bar = QProgressBar()
        self._bar.setRange(0, 100)
        self._bar.setTextVisible(False)
        self._bar.setValue(0)
        self._status = QLabel("")
        self._status.setWordWrap(True)

        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(advanced)
        layout.addLayout(buttons)
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        layout.addStretch()

    @property
    def is_running(self) -> bool:
        """Whether a layer is being denoised."""
        return self._worker is not None

    def denoise(self) -> None:
        """Starts to denoise the chosen layer."""
        from napari.qt.threading import create_worker

        layer = self._layer.layer()
        if self.is_running:
            return
        if layer is None:
            self._fail("Open an image first, such as a sample: File ▸ Open Sample ▸ cbsn.")
            return
        try:
            planes = layer_planes(layer, fill=self._fill.isChecked())
            start: tuple[int, ...] | None = None
            outer_shape, numbers = planes.outer_shape, [*range(planes.count)]
            if self._planes.currentText() == _CURRENT:
                start, outer_shape = current_index(self._viewer, layer), (1,) * len(outer_shape)
                numbers = [planes.number(start)]
            check_memory(planes, len(numbers))
        except Exception as error:
            self._fail(explain(error))
            return
        self._set_running(True)
        model = self._model.model()
        worker = create_worker(
            run_denoising,
            planes,
            numbers,
            model,
            self._tile.value(),
            self._own.isChecked(),
            self._report,
            _start_thread=False,
        )
        self._worker = worker
        self.destroyed.connect(worker.quit)
        worker.returned.connect(
            functools.partial(self._take, layer, model, planes, numbers, outer_shape, start)
        )
        worker.finished.connect(self._finish)
        worker.start()

    def cancel(self) -> None:
        """Ends the work after the tile that is being denoised; nothing of it remains."""
        if self._worker is not None:
            self._worker.quit()
            self._cancel.setEnabled(False)
            self._status.setText("Stopping…")

    def _report(self, share: float, text: str) -> None:
        """Takes the progress, in the worker's thread."""
        worker = self._worker
        if worker is not None and worker.abort_requested:
            raise Cancelled
        self._step = share, text

    def _show_progress(self) -> None:
        share, text = self._step
        if not self._cancel.isEnabled():
            return
        self._bar.setRange(0, 100 if share else 0)  # 0 to 0 shows that it is busy
        self._bar.setValue(round(100 * share))
        self._status.setText(text)

    def _take(
        self,
        layer: Any,
        model: str,
        planes: LayerPlanes,
        numbers: list[int],
        outer_shape: tuple[int, ...],
        start: tuple[int, ...] | None,
        outcome: Any,
    ) -> None:
        """Shows what the worker has returned: a result, or what went wrong."""
        if is_deleted(self):
            return
        if isinstance(outcome, str):
            self._fail(outcome)
            return
        from napari.layers import Image

        result = Result(planes, numbers, outcome, outer_shape)
        settings = settings_of_result(layer, "denoised", start)
        settings["metadata"]["cbsn"] = {"model": model, "source": layer.name}
        added = Image(result.at(self._strength.value()), **settings)
        results[added] = result
        layers = self._viewer.layers
        place = layers.index(layer) + 1 if layer in layers else len(layers)
        layers.insert(place, added)
        if layer.blending not in ("opaque", "translucent", "translucent_no_depth"):
            layer.visible = False  # or else both would shine through each other
        layers.selection.active = added
        self._status.setText(f"Done: {added.name}. Click its eye to compare.")

    def _finish(self) -> None:
        stopped = self._worker is not None and self._worker.abort_requested
        self._worker = None
        if is_deleted(self):
            return
        self._set_running(False)
        if stopped:
            self._status.setText("Cancelled.")

    def _set_running(self, running: bool) -> None:
        self._run.setEnabled(not running)
        self._cancel.setEnabled(running)
        self._step = 0.0, "Loading the model…"
        if running:
            self._ticking.start()
            self._show_progress()
        else:
            self._ticking.stop()
            self._bar.setRange(0, 100)
            self._bar.setValue(0)

    def _fail(self, text: str) -> None:
        from napari.utils.notifications import show_error

        self._status.setText(text)
        show_error(text)

    def _select(self, event: Any = None) -> None:
        """Lets the slider move the selected layer's strength, if that is a result."""
        active = self._viewer.layers.selection.active
        if active is None or active not in results:
            return
        self._shown = weakref.ref(active)
        try:
            self._strength.blockSignals(True)
            self._strength.setValue(results[active].strength)
            self._strength.blockSignals(False)
        except RuntimeError:  # Qt has deleted the widget
            return

    def _apply_strength(self) -> None:
        layer = self._shown()
        if layer is not None and layer in self._viewer.layers:
            result = results[layer]
            if result.strength != self._strength.value():
                layer.data = result.at(self._strength.value())


def _strength_slider() -> Any:
    slider: Any = QLabeledDoubleSlider
    slider = slider(Qt.Orientation.Horizontal)
    slider.setRange(0, 1)
    slider.setDecimals(2)
    slider.setSingleStep(0.01)
    slider.setPageStep(0.1)
    slider.setValue(1)
    return slider


def run_denoising(
    planes: LayerPlanes,
    numbers: list[int],
    model: str,
    tile: int,
    own: bool,
    report: Callable[[float, str], None],
) -> Any:
    """Loads a model and denoises planes, in a thread that waits for the process that does it.

    Returns:
        The planes; or a sentence that says what went wrong; or None if it was cancelled.
    """

    def on_share(share: float) -> None:
        many = f"{len(numbers)} planes" if len(numbers) > 1 else "one plane"
        report(share, f"Denoising {many}: {share:.0%}")

    try:
        with own_warnings():
            report(0.0, "Loading the model…")
            facts = process.facts(model, tile)
            report(0.0, "Looking at the values…")
            scale = measure_scale(planes, facts.scaling, own=own)
            report(0.0, "Denoising…")
            denoise = functools.partial(process.denoise, model, tile)
            return denoise_planes(planes, numbers, denoise, scale, on_share, facts)
    except Cancelled:
        return None
    except NotFiniteError as error:
        return (
            f"{error} To replace them by their neighbours, tick “Fill missing values” under "
            "“Advanced”."
        )
    except Exception as error:
        return explain(error)
