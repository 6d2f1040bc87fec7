"""What users ask for, as jobs in the line: one for each picture at a time."""

import contextlib
import functools
import os
import secrets
import traceback
from collections.abc import Callable

from cbsn.app.jobs import AT_ONCE, LATER, Cancelled, Job, JobQueue
from cbsn.app.pictures import Order, Output, Settings, UserPicture, result_names
from cbsn.app.sessions import Adaptation, GoneError, Session
from cbsn.app.work import Work
from cbsn.errors import CbsnError, ConfigError, in_one_line
from cbsn.progress import say_fault


class Line:
    """Makes jobs of what users ask for, and notes how they end.

    Args:
        queue: where the jobs wait.
        work: what does them.
    """

    def __init__(self, queue: JobQueue, work: Work):
        self._queue = queue
        self._work = work

    def denoise(self, session: Session, picture: UserPicture, settings: Settings) -> None:
        """Denoises a picture to be shown; what a batch wants of it comes afterwards."""

        def run(job: Job) -> None:
            self._work.denoise(job, session, picture, settings)

        self._put(session, picture, run, AT_ONCE)

    def batch(self, session: Session, settings: Settings, output: Output) -> None:
        """Denoises all pictures of a user, and writes their results for the archive.

        Raises:
            ConfigError: if there are none.
        """
        pictures = [*session.pictures.values()]
        if not pictures:
            raise ConfigError("There are no pictures.")
        names = result_names(pictures, output.format)
        for picture in pictures:
            picture.drop_final()
            picture.order = Order(settings, output, session.finals / names[picture])
            self._put_order(session, picture)

    def report_noise(self, session: Session, picture: UserPicture) -> None:
        """Reports the noise of a picture."""

        def run(job: Job) -> None:
            self._work.report_noise(picture)

        self._put(session, picture, run, AT_ONCE, is_measured=True)

    def adapt(self, session: Session, minutes: float, quality: str) -> None:
        """Adapts the model of a quality to all pictures of a user.

        Raises:
            ConfigError: if there are none, or a model is being adapted already.
        """
        if not session.pictures:
            raise ConfigError("There are no pictures to adapt to.")
        before = session.adaptation
        if before and before.job:
            raise ConfigError("A model is being adapted already: wait, or cancel that first.")
        base = "fast" if quality == "fast" else "default"
        adaptation = Adaptation(minutes, base, session.folder / secrets.token_hex(8))

        def run(job: Job) -> None:
            self._work.adapt(job, session, adaptation)

        def ended(job: Job, error: Exception | None) -> None:
            adaptation.job = None
            if isinstance(error, CbsnError):
                text = str(error).replace(f"{session.uploads}{os.sep}", "")
                adaptation.error = in_one_line(text)
            elif error is not None and not isinstance(error, Cancelled):
                say_fault("".join(traceback.format_exception(error)))
                adaptation.error = f"{type(error).__name__}: {error}"

        adaptation.job = Job(session.id, run, ended)
        session.adaptation = adaptation
        self._queue.put(adaptation.job)

    def _put(
        self,
        session: Session,
        picture: UserPicture,
        run: Callable[[Job], None],
        priority: int,
        *,
        is_measured: bool = False,
    ) -> None:
        """Puts a job of a picture in the line, in the place of one that it may have."""
        job = Job(session.id, run, functools.partial(self._ended, session, picture), priority)
        with session.changing:
            if picture.id not in session.pictures:
                raise GoneError("This picture is not there any more: it was removed.")
            before, picture.job = picture.job, job
            picture.is_measured = is_measured
            if before:
                self._queue.cancel(before)
            self._queue.put(job)

    def _put_order(self, session: Session, picture: UserPicture) -> None:
        """Puts in the line what a batch wants of a picture."""

        def run(job: Job) -> None:
            order = picture.order
            if order:
                self._work.denoise(job, session, picture, order.settings)
                job.report()  # so that it ends here if another order came meanwhile
                self._work.write(picture, order)
                with session.changing:
                    if picture.order is order:  # else the next job does the other one
                        picture.order = None

        self._put(session, picture, run, LATER)

    def _ended(
        self, session: Session, picture: UserPicture, job: Job, error: Exception | None
    ) -> None:
        """Notes how a job of a picture ended."""
        if error is not None and not isinstance(
            error, CbsnError | Cancelled | OSError | MemoryError
        ):
            say_fault("".join(traceback.format_exception(error)))
        with session.changing:
            is_last = picture.job is job  # else another one has its place
            if is_last:
                picture.job = None
            if picture.id not in session.pictures:  # removed meanwhile
                picture.drop()
            elif is_last:
                if not picture.is_measured:
                    picture.error = "" if error is None else picture.explain(error)
                if error:
                    picture.order = None
                if picture.order:
                    with contextlib.suppress(Cancelled):  # when the server stops
                        self._put_order(session, picture)
