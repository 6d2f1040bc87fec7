"""What the jobs do: denoising, adapting, and reporting noise. One thread does it at a time."""

import contextlib
import functools
import logging
import secrets
import shutil
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbsn.app.disk import Disk
from cbsn.app.jobs import Job
from cbsn.app.options import AppOptions
from cbsn.app.pictures import Final, Order, Result, Settings, UserPicture, needed_bytes
from cbsn.app.sessions import Adaptation, Session
from cbsn.app.views import View, heat_of, orientation_of_picture
from cbsn.errors import CbsnError, CbsnWarning, ConfigError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.importing import import_tensorflow
from cbsn.inference.options import QUALITIES, DenoiseOptions
from cbsn.noise.removal import Sample
from cbsn.progress import LOGGER
from cbsn.value_range import value_range

if TYPE_CHECKING:  # they load TensorFlow, which takes seconds, in which the page is there already
    from cbsn.inference.denoiser import Denoiser

_MODELS = 4  # that stay in memory


class Work:
    """Does what users ask for.

    Args:
        options: which model, and how it denoises.
        disk: where results get room.
    """

    def __init__(self, options: AppOptions, disk: Disk):
        self._options = options
        self._disk = disk
        self._load = functools.lru_cache(maxsize=_MODELS)(_load)

    def prepare(self) -> None:
        """Loads TensorFlow and the model, so that the first picture need not wait.

        Raises:
            ConfigError: if the GPU, the precision or the engine is not available, or the model is
                none for pictures.
            ModelError: if there is no such model, or it cannot be read.
        """
        import_tensorflow()
        from cbsn.devices import select_gpus

        select_gpus(self._options.gpu, most=1)
        denoiser = self._denoiser(Settings(), None)
        if self._options.model is not None and (denoiser.scaling or denoiser.of_volumes):
            raise ConfigError(
                "The model was trained on stacks, and the page denoises pictures: use cbsn "
                f"denoise, or the plugin of napari. Received: --model {self._options.model}"
            )

    def _denoiser(self, settings: Settings, adapted: Path | None) -> "Denoiser":
        model = self._options.model or QUALITIES[settings.quality]
        options = replace(self._options.denoising, self_ensemble=settings.self_ensemble)
        return self._load(str(adapted or model), options)

    def denoise(
        self,
        job: Job,
        session: Session,
        picture: UserPicture,
        settings: Settings,
    ) -> None:
        """Denoises a picture, unless it is already, so that it can be shown.

        Args:
            job: gets the progress.
            session: whose picture it is.
            picture: gets the result.
            settings: how.
        """
        if picture.result is None or picture.result.settings != settings:
            with noticed() as notes:
                self._make_result(job, session, picture, settings)
            told = (note.replace(str(picture.path), picture.name) for note in notes)
            picture.notes = [*dict.fromkeys(told)]

    def _make_result(
        self, job: Job, session: Session, picture: UserPicture, settings: Settings
    ) -> None:
        denoiser = self._denoiser(settings, session.adapted_model(settings.adapted))
        job.report()
        read = read_picture(picture.path)
        if read.value_range:
            _note(f"Read as {read.value_range}. If white is another value: cbsn denoise --white N.")
        size = needed_bytes(read.pixels, uncertainty=settings.uncertainty)
        folder = session.results / secrets.token_hex(8)
        with self._disk.taken(size), _made(folder):
            orientation = orientation_of_picture(read)
            views = {"noisy": View(folder, "noisy", read.pixels, orientation)}
            if picture.result is None:  # else that is shown meanwhile
                picture.noisy = views["noisy"]
                picture.number += 1
            sample = Sample(read.color)
            is_sure = denoiser.estimating() if settings.uncertainty else contextlib.nullcontext()
            try:
                with is_sure as estimate, denoiser.keeping(folder / "kept.npy") as kept:
                    white = value_range(read.pixels.dtype)
                    denoiser(read.pixels, job.add, in_place=True, white=white)
            finally:
                picture.noisy = None
            removal = sample.compared_with(read.color)
            if removal.degree:
                _note(
                    f"More than the noise was removed ({removal}): look for texture that is gone, "
                    "and take less strength if it is."
                )
            views["denoised"] = View(folder, "denoised", read.pixels, orientation)
            result = Result(settings, folder, size, kept, views, read.icc_profile)
            if estimate:
                self._add_uncertainty(result, read, estimate, orientation)
            picture.drop_result()
            picture.result = result
            picture.number += 1

    def _add_uncertainty(self, result: Result, read: Any, estimate: Any, orientation: int) -> None:
        from cbsn.inference.uncertainty import sigma_picture

        unit = estimate.of_picture(read.pixels) / np.float32(value_range(read.pixels.dtype))
        result.heat_peak, show = heat_of(unit)
        heat = View(result.folder, "uncertainty", unit, orientation, show)
        result.views = {**result.views, "uncertainty": heat}
        write_picture(result.sigma_file, sigma_picture(read, estimate))
        if estimate.calibration and (note := estimate.calibration.note):
            _note(f"{note[0].upper()}{note[1:]}.")

    def write(self, picture: UserPicture, order: Order) -> None:
        """Writes the file of a result, for the archive of all."""
        target = order.target
        picture.drop_final()
        target.parent.mkdir(parents=True, exist_ok=True)
        with noticed():  # which were told when it was denoised
            picture.write(target, target.name, order.output.strength)
        size = target.stat().st_size
        try:
            self._disk.take(size)
        except BaseException:
            target.unlink()
            raise
        picture.final = Final(target, size)

    def adapt(self, job: Job, session: Session, adaptation: Adaptation) -> None:
        """Adapts the model of a quality to all pictures of a user."""
        from cbsn.training.adaptation import adapt, save_adapted

        paths = [picture.path for picture in [*session.pictures.values()] if not picture.error]
        denoiser = self._denoiser(Settings(adaptation.quality), None)
        with noticed() as notes, _heard() as lines:
            try:
                adapted = adapt(paths, denoiser, adaptation.minutes, on_share=job.report)
            finally:
                for text in [*lines, *notes]:
                    for path in paths:
                        text = text.replace(str(path), path.name)
                    adaptation.lines.append(text)
        adaptation.has_changed = adapted.facts["adapted"]
        if adaptation.has_changed:  # else the model in use stays, which may be one adapted before
            save_adapted(adapted, adaptation.folder)
            session.use_adapted(adaptation)
        adaptation.is_done = True

    def report_noise(self, picture: UserPicture) -> None:
        """Reports the noise of a picture, with a figure if there is one to draw."""
        from cbsn.evaluation.noise_report import noise_of_pictures
        from cbsn.noise.report import draw_noise

        try:
            with noticed():
                report = noise_of_pictures([picture.path])
        except CbsnError as error:  # such as that no noise is seen, and why
            picture.noise = {"lines": [picture.explain(error)], "figure": False}
            return
        if report.estimate and report.advice:
            draw_noise(report.estimate, report.advice, picture.figure)
        picture.noise = {"lines": [*report.lines], "figure": picture.figure.exists()}


def _load(model: str, options: DenoiseOptions) -> "Denoiser":
    from cbsn.inference.denoiser import Denoiser

    return Denoiser.load(model, options)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder, which is deleted if the block raises an error."""
    folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


_thread = threading.local()


def collect_notes() -> None:
    """Makes each thread's `CbsnWarning`s go to its own `noticed` block, for good.

    Those of other threads are of other users' pictures.
    """
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        if not issubclass(category, CbsnWarning):
            others(message, category, *rest, **options)
        elif (notes := getattr(_thread, "notes", None)) is not None:
            notes.append(str(message))

    warnings.showwarning = show  # type: ignore[assignment]
    warnings.filterwarnings("always", category=CbsnWarning)


def _note(text: str) -> None:
    """Adds a text to this thread's notes."""
    _thread.notes.append(text)


@contextlib.contextmanager
def noticed() -> Iterator[list[str]]:
    """Yields a list that gets the texts of this thread's `CbsnWarning`s."""
    _thread.notes = []
    try:
        yield _thread.notes
    finally:
        _thread.notes = None


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Yields a list that gets what the package says in this thread."""
    lines: list[str] = []
    here = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                lines.append(record.getMessage())

    listener = Listener()
    LOGGER.addHandler(listener)
    try:
        yield lines
    finally:
        LOGGER.removeHandler(listener)
