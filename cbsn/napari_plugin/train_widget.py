"""The widget that trains Noise2Void on a layer."""

import contextlib
import queue
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QEvent
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cbsn.errors import TrainingStopped
from cbsn.napari_plugin import training
from cbsn.napari_plugin.choices import (
    LayerChoice,
    form,
    is_deleted,
    is_model_folder,
    models,
    timer,
    unwrapped,
)
from cbsn.napari_plugin.denoising import explain, own_warnings, results
from cbsn.napari_plugin.layers import NotFiniteError, layer_planes
from cbsn.napari_plugin.training import TrainingProcess

_MINUTES, _STEPS = "minutes", "steps"
_LINES = 5000  # of the log that are kept
_SHOW_MS = 500  # between updates of the progress bar
_LISTEN_MS = 50  # between looks at what the process has said


class TrainWidget(QWidget):
    """Trains Noise2Void on the planes of a layer, in a process of its own.

    So napari stays responsive, and the training's memory is given back at its end. The run is
    saved when it is stopped, and another one of the same name goes on from there. It is also
    stopped when the widget's dock is closed, or Qt deletes the widget.

    Args:
        viewer: napari's.
    """

    def __init__(self, viewer: Viewer):
        super().__init__()
        self._viewer = viewer = unwrapped(viewer)
        self._worker: Any = None  # writes the planes
        self._process: TrainingProcess | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._folder = Path()
        self._stops = 0  # how often the user has asked to stop
        self._began = 0.0
        self._last_error = ""
        self._build()
        # What the process says, from the thread that reads it. No signals: that thread may outlive
        # what Qt has of the widget.
        self._said: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._listening = timer(self, _LISTEN_MS, self._listen)
        self._clock = timer(self, 0, self._time_is_up)
        self._clock.setSingleShot(True)
        self._ticking = timer(self, _SHOW_MS, self._show_minutes)
        application = QApplication.instance()
        assert application is not None
        application.aboutToQuit.connect(self._quit)

    def _build(self) -> None:
        self._layer = LayerChoice(self._viewer, skipped=results)
        self._layer.currentIndexChanged.connect(self._suggest_name)
        self._name = QLineEdit()
        self._name.setToolTip("The model's name. A run of the same name is continued.")
        self._name.textEdited.connect(lambda text: self._name.setProperty("edited", bool(text)))
        self._models_folder = QLineEdit(str(Path.home() / "cbsn-models"))
        self._models_folder.setToolTip("The folder that gets a folder of that name.")
        browse = QPushButton("…")
        browse.setFixedWidth(28)
        browse.clicked.connect(self._browse)
        where = QHBoxLayout()
        where.addWidget(self._models_folder)
        where.addWidget(browse)
        self._limit = QDoubleSpinBox()
        self._unit = QComboBox()
        self._unit.addItems([_MINUTES, _STEPS])
        self._unit.currentTextChanged.connect(self._set_limits)
        self._set_limits(_MINUTES)
        until = QHBoxLayout()
        until.addWidget(self._limit, 1)
        until.addWidget(self._unit, 1)
        rows = form()
        rows.addRow("Layer", self._layer)
        rows.addRow("Name", self._name)
        rows.addRow("Folder", where)
        rows.addRow("Stop after", until)

        self._run = QPushButton("Train")
        self._run.clicked.connect(self.train)
        self._stop = QPushButton("Stop")
        self._stop.setToolTip("Saves the model and ends. Click twice to end at once.")
        self._stop.setEnabled(False)
        self._stop.clicked.connect(self.stop)
        buttons = QHBoxLayout()
        buttons.addWidget(self._run, 2)
        buttons.addWidget(self._stop, 1)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setRange(0, 100)
        self._bar.setValue(0)
        self._status = QLabel("Learns from the noisy planes alone; nothing clean is needed.")
        self._status.setWordWrap(True)
        self._log = QPlainTextEdit()
        self._log.setReadOnly(True)
        self._log.setMaximumBlockCount(_LINES)
        self._log.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self._log.setPlaceholderText("The log of the training")

        layout = QVBoxLayout(self)
        layout.addLayout(rows)
        layout.addLayout(buttons)
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        layout.addWidget(self._log, 1)
        self._suggest_name()

    @property
    def is_running(self) -> bool:
        """Whether a training is being prepared, or runs."""
        return self._worker is not None or self._process is not None

    def _set_limits(self, unit: str) -> None:
        if unit == _MINUTES:
            self._limit.setDecimals(1)
            self._limit.setRange(0.1, 10_000)
            self._limit.setValue(10)
        else:
            self._limit.setDecimals(0)
            self._limit.setRange(1, 10_000_000)
            self._limit.setValue(4000)

    def _suggest_name(self) -> None:
        layer = self._layer.layer()
        if layer is not None and not self._name.property("edited"):
            plain = re.sub(r"\W+", "-", layer.name).strip("-").lower()
            self._name.setText(f"n2v-{plain}" if plain else "n2v")

    def _browse(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of models"):
            self._models_folder.setText(folder)

    def train(self) -> None:
        """Writes the layer's planes to a temporary file, and starts the training."""
        from napari.qt.threading import create_worker

        layer, name = self._layer.layer(), self._name.text().strip()
        if self.is_running:
            return
        if layer is None:
            self._fail("Open an image first, such as a sample: File ▸ Open Sample ▸ cbsn.")
            return
        if not name or Path(name).name != name or name.startswith("."):
            self._fail("Give the model a name that a folder can have.")
            return
        try:
            planes = layer_planes(layer)
            self._folder = Path(self._models_folder.text()).expanduser().absolute() / name
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._files = tempfile.TemporaryDirectory(prefix="cbsn-", ignore_cleanup_errors=True)
        except Exception as error:
            self._fail(explain(error))
            return
        file = Path(self._files.name) / f"{name}.tif"
        self._stops, self._last_error = 0, ""
        self._log.clear()
        self._set_running(True)
        self._status.setText("Writing the planes…")
        worker: Any = create_worker(
            self._prepare,
            planes,
            file,
            lambda: bool(self._stops) or worker.abort_requested,
            _start_thread=False,
        )
        self._worker = worker
        self.destroyed.connect(worker.quit)
        worker.returned.connect(lambda outcome: self._start(file, outcome))
        worker.start()

    @staticmethod
    def _prepare(planes: Any, file: Path, is_stopped: Any) -> Any:
        """Writes the planes, in a thread; returns their number, or what went wrong."""
        try:
            with own_warnings():
                return training.write_planes(planes, file, is_stopped)
        except NotFiniteError as error:
            return f"{error} Fill them first, or train on the file: cbsn train FILE --nan fill."
        except Exception as error:
            return explain(error)

    def _start(self, file: Path, outcome: Any) -> None:
        self._worker = None
        assert self._files is not None
        if is_deleted(self):
            self._files.cleanup()
            return
        if self._stops or isinstance(outcome, str):
            self._clean_up()
            if self._stops:
                self._status.setText("Stopped before the training began.")
            else:
                self._fail(outcome)
            return
        said, files = self._said, self._files

        def end(status: int) -> None:
            # Here, as the widget may be gone.
            with contextlib.suppress(OSError):
                files.cleanup()
            said.put(("end", status))

        is_timed = self._unit.currentText() == _MINUTES
        steps = None if is_timed else int(self._limit.value())
        command = training.training_command(file, self._folder, steps)
        planes = f"{outcome} planes" if outcome > 1 else "One plane"
        goes_on = " It goes on from an earlier run." if is_model_folder(self._folder) else ""
        self._log_line(f"{planes} to learn from; the model is saved in {self._folder}.{goes_on}")
        try:
            self._process = TrainingProcess(
                command,
                file.parent,
                lambda line: said.put(("line", line)),
                lambda *steps: said.put(("steps", *steps)),
                end,
            )
        except OSError as error:
            self._clean_up()
            self._fail(explain(error))
            return
        self.destroyed.connect(self._process.stop)
        self._listening.start()
        self._status.setText("Starting, which takes some seconds…")
        self._began = time.monotonic()
        if is_timed:
            self._clock.start(round(60_000 * self._limit.value()))
            self._ticking.start()

    def stop(self) -> None:
        """Asks the training to save and to end; the second time, ends it at once."""
        self._stops += 1
        self._clock.stop()
        self._ticking.stop()
        if self._process is not None:
            if self._stops > 1:
                self._process.kill()
            else:
                self._process.stop()
        self._bar.setRange(0, 0)
        self._status.setText("Stopping: the model is being saved…")

    def _time_is_up(self) -> None:
        if not self._stops:
            self._log_line("The time is up.")
            self.stop()

    def _quit(self) -> None:
        """Stops the training when napari ends; the run is saved."""
        if self._process is not None:
            self._process.stop()

    def event(self, event: Any) -> bool:
        """Stops the training when napari takes the widget out of a dock that is closed."""
        is_taken_out = event.type() == QEvent.Type.ParentChange and self.parent() is None
        if is_taken_out and self.is_running and not self._stops:
            self.stop()
        return super().event(event)

    def _listen(self) -> None:
        """Shows what the process has said since the last time."""
        shows: dict[str, Any] = {
            "line": self._log_line,
            "steps": self._show_steps,
            "end": self._end,
        }
        while not self._said.empty():
            kind, *values = self._said.get()
            shows[kind](*values)

    def _log_line(self, line: str) -> None:
        if line.startswith("error: "):
            self._last_error = line.removeprefix("error: ")
        self._log.appendPlainText(line)

    def _show_steps(self, step: int, steps: int) -> None:
        if self._stops:
            return
        if self._unit_run == _STEPS:
            self._bar.setRange(0, steps)
            self._bar.setValue(step)
            self._status.setText(f"Step {step:,} of {steps:,}")
        else:
            self._status.setText(f"Step {step:,}")

    def _show_minutes(self) -> None:
        passed = (time.monotonic() - self._began) / 60
        self._bar.setRange(0, 1000)
        self._bar.setValue(round(1000 * min(1.0, passed / self._limit.value())))

    def _end(self, status: int) -> None:
        """Says how the training has ended, and passes the model on."""
        self._process = None
        self._clean_up()
        name = self._folder.name
        if is_model_folder(self._folder) and (self._stops or status in (0, TrainingStopped.status)):
            from napari.utils.notifications import show_info

            self._status.setText(f"Trained: {name} is now the model under “Denoise”.")
            models().add(self._folder)
            show_info(f"The model {name} is trained, and chosen under “Denoise”.")
        elif self._stops:
            self._status.setText("Stopped before there was anything to save.")
        elif "--no-resume" in self._last_error:  # advice for a terminal
            self._fail(
                f"The training failed: {self._folder} has a run that cannot go on with this layer. "
                "Give another name or folder. What does not fit is in the log."
            )
        else:
            reason = self._last_error or f"it ended with status {status}; see its log."
            self._fail(f"The training failed: {reason}")

    def _clean_up(self) -> None:
        self._clock.stop()
        self._ticking.stop()
        self._listening.stop()
        if self._files is not None:
            with contextlib.suppress(OSError):
                self._files.cleanup()
            self._files = None
        self._set_running(False)

    def _set_running(self, running: bool) -> None:
        self._unit_run = self._unit.currentText()
        fields = (self._layer, self._name, self._models_folder, self._limit, self._unit)
        for each in (self._run, *fields):
            each.setEnabled(not running)
        self._stop.setEnabled(running)
        self._bar.setRange(0, 0 if running else 100)
        self._bar.setValue(0)

    def _fail(self, text: str) -> None:
        from napari.utils.notifications import show_error

        self._status.setText(text)
        show_error(text)
