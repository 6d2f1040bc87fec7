"""What both widgets have: the choice of a layer, of a model, and rows of a form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QWidget

SHIPPED_MODELS = {
    "photo-large": "photo-large (best)",
    "photo": "photo (fast)",
}
_CHOOSE = "Choose a folder…"


def unwrapped(viewer: Any) -> Any:
    """Returns a viewer without the proxy that napari gives to plugins.

    The proxy makes new objects of the layers each time, so no layer would be found again.
    """
    return getattr(viewer, "__wrapped__", viewer)


class LayerChoice(QComboBox):
    """Chooses one of a viewer's image layers; the selected one, if that is an image.

    Args:
        viewer: whose layers there are.
        skipped: layers that are not taken when they are selected, such as results.
    """

    def __init__(self, viewer: Any, skipped: Any = ()):
        super().__init__()
        self._viewer, self._skipped = viewer, skipped
        self._layers: list[Any] = []
        self.setToolTip("The image to work on. Select it in the list of layers, or here.")
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._refresh)
        viewer.layers.events.reordered.connect(self._refresh)
        viewer.layers.selection.events.active.connect(self._follow)
        self._refresh()
        self._follow()

    def layer(self) -> Any:
        """Returns the chosen layer, or None if there is no image."""
        place = self.currentIndex()
        return self._layers[place] if 0 <= place < len(self._layers) else None

    def choose(self, layer: Any) -> None:
        """Chooses a layer, if it is one of the images."""
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def _refresh(self, event: Any = None) -> None:
        from napari.layers import Image

        chosen = self.layer()
        layers = [each for each in self._viewer.layers if isinstance(each, Image)]
        for each in layers:
            if each not in self._layers:
                each.events.name.connect(self._refresh)
        self._layers = layers[::-1]  # the uppermost first, as in napari's list
        try:
            with QSignalBlocker(self):
                self.clear()
                self.addItems([each.name for each in self._layers])
                fit = [each for each in self._layers if each not in self._skipped]
                self.choose(chosen if chosen in self._layers else next(iter(fit), None))
        except RuntimeError:  # Qt has deleted the widget
            return
        self.currentIndexChanged.emit(self.currentIndex())

    def _follow(self, event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        if active not in self._skipped:
            try:
                self.choose(active)
            except RuntimeError:  # Qt has deleted the widget
                return


class _Models(QObject):
    """The folders of models that were chosen or trained since napari has started."""

    added = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.folders: list[str] = []

    def add(self, folder: Path) -> None:
        """Adds a folder, which all choices of a model choose then."""
        path = str(folder)
        if path not in self.folders:
            self.folders.append(path)
        self.added.emit(path)


_models: list[_Models] = []  # the only one, once there is an application


def models() -> _Models:
    """Returns the list of models that all widgets share."""
    if not _models:
        _models.append(_Models())
    return _models[0]


class ModelChoice(QComboBox):
    """Chooses a model: one that ships, or a folder."""

    def __init__(self):
        super().__init__()
        self.setToolTip("What denoises. A folder is one that “Train N2V here” or cbsn train made.")
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for model, text in SHIPPED_MODELS.items():
            self.addItem(text, model)
        self.insertSeparator(self.count())
        self.addItem(_CHOOSE)
        for folder in models().folders:
            self._insert(folder)
        self._last = 0
        models().added.connect(self._insert)
        self.activated.connect(self._activate)

    def model(self) -> str:
        """Returns the name or the path of the chosen model."""
        return self.currentData()

    def _insert(self, folder: str) -> None:
        place = self.findData(folder)
        if place < 0:
            place = len(SHIPPED_MODELS)
            self.insertItem(place, Path(folder).name, folder)
            self.setItemData(place, folder, Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(place)
        self._last = place

    def _activate(self, place: int) -> None:
        """Asks for a folder, if the last entry was chosen."""
        if self.itemText(place) != _CHOOSE:
            self._last = place
            return
        folder = QFileDialog.getExistingDirectory(self, "A run or a saved model")
        self.setCurrentIndex(self._last)
        if folder and is_model_folder(Path(folder)):
            models().add(Path(folder))
        elif folder:
            from napari.utils.notifications import show_error

            show_error(f"{folder} holds no model. Choose the folder of a run of cbsn train.")


def is_model_folder(folder: Path) -> bool:
    """Returns whether a folder is that of a run or a saved model. It does not load TensorFlow."""
    folders = (folder, folder / "best", folder / "last")
    return any((each / "recipe.json").is_file() for each in folders)


def is_deleted(widget: QWidget) -> bool:
    """Returns whether Qt has deleted a widget of which Python still has an object."""
    try:
        widget.objectName()
    except RuntimeError:
        return True
    return False


def timer(parent: QObject, milliseconds: int, then: Callable[[], Any]) -> QTimer:
    """Returns a timer that calls something again and again, once it is started."""
    made = QTimer(parent)
    made.setInterval(milliseconds)
    made.timeout.connect(then)
    return made


def form(parent: QWidget | None = None) -> QFormLayout:
    """Returns an empty form, of which the fields take all the width."""
    layout = QFormLayout(parent)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout
