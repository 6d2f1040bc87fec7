"""The users of the page, each with pictures of their own that nobody else sees."""

import dataclasses
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cbsn.app.disk import Disk
from cbsn.app.jobs import Job, JobQueue
from cbsn.app.options import AppOptions
from cbsn.app.pictures import UserPicture
from cbsn.errors import CbsnError

_MOST_USERS = 500


class GoneError(CbsnError):
    """There is no such user or picture, or not any more."""


@dataclasses.dataclass(eq=False)
class Adaptation:
    """A model that is, or was, adapted to the pictures of a user.

    Args:
        minutes: how long.
        quality: "fast" or "default", of the model that is adapted.
        folder: where it is saved.
        job: what does it, as long as it does.
        lines: what was said of it.
        error: why it failed, or empty.
        is_done: whether it came to its end.
        has_changed: whether that helped, so that there is a model.
        number: counts the adapted models of the user from 1; 0 as long as there is none.
    """

    minutes: float
    quality: str
    folder: Path
    job: Job | None = None
    lines: list[str] = dataclasses.field(default_factory=list)
    error: str = ""
    is_done: bool = False
    has_changed: bool = False
    number: int = 0

    def describe(self, order: Mapping[Job, int]) -> dict[str, Any]:
        """Returns what the page is told, for JSON."""
        job = self.job
        state = "done" if self.is_done else "failed" if self.error else "cancelled"
        return {
            "state": ("working" if job.is_running else "waiting") if job else state,
            "share": round(job.share, 3) if job else None,
            "place": order.get(job, 0) if job else None,
            "minutes": self.minutes,
            "lines": self.lines,
            "error": self.error,
            "has_changed": self.has_changed,
        }


class Session:
    """A user, known by a cookie.

    Attributes:
        pictures: by their ids, in the order in which they were given.
        adaptation: the last one that was begun, or None.
        changing: held while the pictures change.
    """

    def __init__(self, disk: Disk):
        self.id = secrets.token_urlsafe(24)
        # Not the id, which opens the session.
        self.folder = disk.folder / secrets.token_hex(8)
        for folder in (self.uploads, self.results, self.finals):
            folder.mkdir(parents=True)
        self.pictures: dict[str, UserPicture] = {}
        self.adaptation: Adaptation | None = None
        self._adapted: Adaptation | None = None  # whose model can be used
        self.changing = threading.RLock()
        self.seen = time.monotonic()

    @property
    def uploads(self) -> Path:
        """Folder of the pictures, under their own names."""
        return self.folder / "pictures"

    @property
    def results(self) -> Path:
        """Folder of the results that are shown."""
        return self.folder / "results"

    @property
    def finals(self) -> Path:
        """Folder of the files that batches write."""
        return self.folder / "denoised"

    def picture(self, id: str) -> UserPicture:
        """Returns one of the pictures; GoneError if there is none of this id."""
        try:
            return self.pictures[id]
        except KeyError:
            raise GoneError("This picture is not there any more: it was removed.") from None

    def use_adapted(self, adaptation: Adaptation) -> None:
        """Makes a model that was adapted the one to use; the one before is deleted."""
        before, self._adapted = self._adapted, adaptation
        adaptation.number = before.number + 1 if before else 1
        if before:
            shutil.rmtree(before.folder, ignore_errors=True)

    def adapted_model(self, number: int) -> Path | None:
        """Returns the folder of an adapted model by its number, or None for 0, which is none.

        Raises:
            GoneError: if it was replaced, or there is none.
        """
        if number == 0:
            return None
        if self._adapted is None or self._adapted.number != number:
            raise GoneError("This adapted model is not there any more: adapt again.")
        return self._adapted.folder

    def jobs(self) -> list[Job]:
        """Returns the jobs that wait or run."""
        owners: list[Any] = [*self.pictures.values(), self.adaptation]
        return [owner.job for owner in owners if owner and owner.job]

    def describe(self, order: Iterable[Job]) -> dict[str, Any]:
        """Returns what the page is told, for JSON; `order` has the jobs of all users in line."""
        places = {job: place for place, job in enumerate(order)}
        return {
            "pictures": [each.describe(places) for each in [*self.pictures.values()]],
            "adaptation": self.adaptation and self.adaptation.describe(places),
            "adapted": self._adapted
            and {"number": self._adapted.number, "quality": self._adapted.quality},
        }


class Sessions:
    """All users, and their files.

    Args:
        options: how much they may store, and for how long.
        queue: their jobs.
    """

    def __init__(self, options: AppOptions, queue: JobQueue):
        self._idle = options.idle_minutes * 60
        self._queue = queue
        self._sessions: dict[str, Session] = {}
        self._changing = threading.Lock()
        self.disk = Disk(int(options.max_disk_gb * 1e9), self._make_room)

    def start(self) -> Session:
        """Returns a new user."""
        self.remove_idle()
        with self._changing:
            if len(self._sessions) >= _MOST_USERS:
                # Such as those of monitors, which come without a cookie each time.
                empty = [each for each in self._sessions.values() if not each.pictures]
                if not empty:
                    raise CbsnError("Too many people use this server: try again later.")
                oldest = min(empty, key=lambda each: each.seen)
                del self._sessions[oldest.id]
                shutil.rmtree(oldest.folder, ignore_errors=True)
            session = Session(self.disk)
            self._sessions[session.id] = session
        return session

    def find(self, id: str | None) -> Session:
        """Returns a user by the cookie, who counts as active now; GoneError if there is none."""
        session = self._sessions.get(id or "")
        if session is None:
            raise GoneError("The page was closed for too long, or the server started anew: reload.")
        session.seen = time.monotonic()
        return session

    def remove_idle(self) -> None:
        """Deletes the files of users whose page is closed, and who wait for nothing."""
        limit = time.monotonic() - self._idle
        for session in [*self._sessions.values()]:
            if session.seen < limit and not session.jobs():
                self.remove(session)

    def remove(self, session: Session) -> None:
        """Deletes a user and all files."""
        with self._changing:
            self._sessions.pop(session.id, None)
        self._queue.cancel(*session.jobs())
        self.remove_pictures(session, [*session.pictures.values()])
        shutil.rmtree(session.folder, ignore_errors=True)

    def remove_pictures(self, session: Session, pictures: Iterable[UserPicture]) -> None:
        """Deletes some pictures of a user."""
        for picture in pictures:
            with session.changing:
                if session.pictures.pop(picture.id, None) is None:
                    continue
                job = picture.job
            if job:
                self._queue.cancel(job)
            if not picture.job:  # else it is dropped when the job has ended
                picture.drop()

    def _make_room(self, size: int) -> None:
        """Deletes the results that nobody has looked at for the longest time."""
        pictures = [each for user in [*self._sessions.values()] for each in user.pictures.values()]
        results = [(each.result.used, each) for each in pictures if each.result]
        for _, picture in sorted(results, key=lambda pair: pair[0]):
            if size <= 0:
                return
            if result := picture.result:
                size -= result.size
                picture.drop_result()

    def close(self) -> None:
        """Deletes everything."""
        self.disk.close()
