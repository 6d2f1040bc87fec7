"""The page and what it asks for: pictures are taken, denoised, shown and given back."""

import asyncio
import contextlib
import functools
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

import cbsn
from cbsn.app.access import HEALTH, cookie_name
from cbsn.app.answers import answer_of, output_of, refused, settings_of, told
from cbsn.app.archive import zipped
from cbsn.app.disk import Disk
from cbsn.app.jobs import JobQueue
from cbsn.app.line import Line
from cbsn.app.options import AppOptions
from cbsn.app.pictures import (
    PICTURE_FORMATS,
    result_names,
)
from cbsn.app.sessions import GoneError, Session, Sessions
from cbsn.app.uploads import receive
from cbsn.app.views import GAINS, TILE, png, removed_tile
from cbsn.app.work import Work, collect_notes
from cbsn.errors import CbsnError, ConfigError
from cbsn.evaluation.report.templates import templates
from cbsn.images.finding import IMAGE_SUFFIXES
from cbsn.inference.options import QUALITIES

MOST_MINUTES = 120
"""How long a user may have a model adapted."""

_ENDING = 10  # seconds that a job has to end when the server stops
_LONGEST_JSON = 2**16  # bytes of what the page asks for
_PLACES = {str(number): number for number in range(10_000)}  # of tiles
_CLEANING = 60  # seconds between looking for users who are gone
_REPORT = Path(__file__).parents[1] / "evaluation" / "report"  # the viewer is that of the report
_FILES = {
    "icon.svg": Path(__file__).parent,
    "page.css": Path(__file__).parent,
    "page.js": Path(__file__).parent,
    "tiles.js": Path(__file__).parent,
    "base.css": _REPORT,
    "viewer.css": _REPORT,
    "viewer.js": _REPORT,
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Endpoint = Callable[[Request], Any]


class Page:
    """The page, and what it asks for.

    Args:
        options: where it is, who may use it, and how much.
        port: where it listens.

    Attributes:
        sessions: its users.
        failure: why it cannot denoise; None if it can.
    """

    def __init__(self, options: AppOptions, port: int):
        self._options = options
        self._cookie = cookie_name("user", port)
        self._queue = JobQueue()
        self.sessions = Sessions(options, self._queue)
        self._work = Work(options, self.disk)
        self._line = Line(self._queue, self._work)
        self._writing = asyncio.Lock()  # a large picture is in memory only once
        self._stopping = threading.Event()
        self.failure: CbsnError | None = None

    def application(self, on_failure: Callable[[], None]) -> Starlette:
        """Returns the ASGI application; `on_failure` is called if the model cannot be loaded."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            collect_notes()
            worker = threading.Thread(target=self._run, args=(on_failure,), daemon=True)
            cleaner = threading.Thread(target=self._keep_clean, daemon=True)
            worker.start()
            cleaner.start()
            try:
                yield
            finally:
                self._stopping.set()
                self._queue.close()
                worker.join(_ENDING)
                self.sessions.close()

        picture = "/api/pictures/{id}"
        routes = [
            Route("/", self._page),
            Route(HEALTH, lambda request: PlainTextResponse("ok\n")),
            Route("/static/{name}", _static),
            Route("/api/state", self._user(self._state)),
            Route("/api/pictures", self._upload, methods=["POST"]),
            Route("/api/pictures", self._user(self._remove_all), methods=["DELETE"]),
            Route(picture, self._user(self._remove), methods=["DELETE"]),
            Route(f"{picture}/denoise", self._asked(self._denoise), methods=["POST"]),
            Route(f"{picture}/noise", self._asked(self._noise), methods=["POST"]),
            Route(f"{picture}/noise.png", self._user(self._noise_figure)),
            Route(f"{picture}/cancel", self._user(self._cancel), methods=["POST"]),
            Route(
                f"{picture}/tiles/{{view}}/{{level}}/{{x}}/{{y}}.png",
                self._user(self._tile),
            ),
            Route(f"{picture}/result", self._in_turn(self._result)),
            Route(f"{picture}/uncertainty", self._user(self._uncertainty)),
            Route("/api/batch", self._asked(self._batch), methods=["POST"]),
            Route("/api/cancel", self._user(self._cancel_all), methods=["POST"]),
            Route("/api/adapt", self._asked(self._adapt), methods=["POST"]),
            Route("/api/adapt/cancel", self._user(self._cancel_adapting), methods=["POST"]),
            Route("/api/results.zip", self._user(self._archive)),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    @property
    def disk(self) -> Disk:
        """Where the files of all users are."""
        return self.sessions.disk

    # Threads

    def _run(self, on_failure: Callable[[], None]) -> None:
        """Does the jobs, after the model is loaded."""
        try:
            self._work.prepare()
        except CbsnError as error:
            self.failure = error
            on_failure()
            return
        self._queue.work()

    def clean(self) -> None:
        """Deletes the files of users who are gone."""
        self.sessions.remove_idle()

    def _keep_clean(self) -> None:
        while not self._stopping.wait(_CLEANING):
            self.clean()

    # Requests

    def _find(self, request: Request) -> Session:
        return self.sessions.find(request.cookies.get(self._cookie))

    def _user(self, answer: Callable[[Request, Session], Any]) -> Endpoint:
        """Returns an endpoint for requests of a user, in a thread of its own; errors are told."""

        def endpoint(request: Request) -> Response:
            return told(lambda: answer(request, self._find(request)))

        return endpoint

    def _in_turn(self, answer: Callable[[Request, Session], Any]) -> Endpoint:
        """Returns an endpoint for requests that take memory: one at a time has it."""

        async def endpoint(request: Request) -> Response:
            async with self._writing:
                return await run_in_threadpool(told, lambda: answer(request, self._find(request)))

        return endpoint

    def _asked(self, answer: Callable[[Request, Session, Any], Any]) -> Endpoint:
        """Returns an endpoint for requests with JSON."""

        async def endpoint(request: Request) -> Response:
            try:
                session = self._find(request)
                body = b""
                async for part in request.stream():
                    body += part
                    if len(body) > _LONGEST_JSON:
                        break
                asked = json.loads(body) if len(body) <= _LONGEST_JSON else None
            except (ValueError, RecursionError):
                asked = None
            except ClientDisconnect:
                return Response(status_code=400)
            except CbsnError as error:
                return answer_of(error)
            if not isinstance(asked, dict):
                return refused(400, "The request is not understood: reload the page.")
            return await run_in_threadpool(told, lambda: answer(request, session, asked))

        return endpoint

    def _page(self, request: Request) -> Response:
        """Answers with the page; who comes for the first time is a new user."""

        def answer() -> Response:
            try:
                session = self._find(request)
            except GoneError:
                session = self.sessions.start()
            page = HTMLResponse(self._html())
            page.set_cookie(self._cookie, session.id, httponly=True, samesite="lax")
            return page

        try:
            return answer()
        except CbsnError as error:
            return PlainTextResponse(f"{error}\n", 503)

    @functools.cache  # noqa: B019, as there is one page
    def _html(self) -> str:
        return (
            templates(Path(__file__).parent)
            .get_template("page.html.jinja")
            .render(
                version=cbsn.__version__,
                is_local=self._options.is_local,
                qualities=[] if self._options.model else [*QUALITIES],
                model=self._options.model,
                formats=PICTURE_FORMATS,
                gains=GAINS,
                tile=TILE,
                suffixes=sorted(IMAGE_SUFFIXES),
                most_minutes=MOST_MINUTES,
                max_file_mb=self._options.max_file_mb,
            )
        )

    def _state(self, request: Request, session: Session) -> Any:
        return session.describe(self._queue.order())

    async def _upload(self, request: Request) -> Response:
        """Takes a picture: its bytes are the body, its name is in the query."""
        try:
            session = self._find(request)
            picture = await receive(request, session, self.disk, self._options)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            return answer_of(error)
        return JSONResponse(picture.describe({}), 201)

    def _remove(self, request: Request, session: Session) -> None:
        self.sessions.remove_pictures(session, [session.picture(request.path_params["id"])])

    def _remove_all(self, request: Request, session: Session) -> None:
        self._cancel_adapting(request, session)
        self.sessions.remove_pictures(session, [*session.pictures.values()])

    def _denoise(self, request: Request, session: Session, asked: Any) -> None:
        picture = session.picture(request.path_params["id"])
        self._line.denoise(session, picture, settings_of(asked))

    def _batch(self, request: Request, session: Session, asked: Any) -> None:
        self._line.batch(session, settings_of(asked), output_of(asked))

    def _noise(self, request: Request, session: Session, asked: Any) -> None:
        self._line.report_noise(session, session.picture(request.path_params["id"]))

    def _noise_figure(self, request: Request, session: Session) -> Response:
        picture = session.picture(request.path_params["id"])
        if not picture.figure.exists():
            raise GoneError("There is no figure of this picture's noise.")
        return FileResponse(picture.figure)

    def _cancel(self, request: Request, session: Session) -> None:
        picture = session.picture(request.path_params["id"])
        if picture.job:
            self._queue.cancel(picture.job)

    def _cancel_all(self, request: Request, session: Session) -> None:
        jobs = [picture.job for picture in session.pictures.values()]
        self._queue.cancel(*[job for job in jobs if job])

    def _tile(self, request: Request, session: Session) -> Response:
        """Answers with a tile of a view; its address changes when the view does."""
        asked = request.path_params
        picture = session.picture(asked["id"])
        gain = request.query_params.get("gain", "1")
        if gain not in map(str, GAINS):
            raise ConfigError(
                f"The gain is one of {', '.join(map(str, GAINS))}. Received: {gain!r}"
            )
        result, views = picture.result, picture.views
        try:
            place = [_PLACES[asked[name]] for name in ("level", "x", "y")]
            if asked["view"] == "removed":
                noisy, denoised = (views[name].tile(*place) for name in ("noisy", "denoised"))
                tile = removed_tile(noisy, denoised, int(gain))
            else:
                tile = views[asked["view"]].tile(*place)
        except KeyError:
            raise GoneError("There is no such part of the picture.") from None
        if result:
            result.used = time.monotonic()
        has_profile = result and asked["view"] in ("noisy", "denoised") and tile.shape[-1] >= 3
        profile = result.icc_profile if result and has_profile else None
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(png(tile, profile), media_type="image/png", headers=headers)

    def _result(self, request: Request, session: Session) -> Response:
        """Answers with the file of a result, as `cbsn denoise` writes it."""
        picture = session.picture(request.path_params["id"])
        output = output_of(request.query_params)
        names = result_names([*session.pictures.values()], output.format)
        if picture not in names:  # removed just now
            raise GoneError("This picture is not there any more: it was removed.")
        name = names[picture]
        target = session.folder / f"{secrets.token_hex(8)}{Path(name).suffix}"
        picture.write(target, name, output.strength)
        done = BackgroundTask(target.unlink, missing_ok=True)
        return FileResponse(target, filename=name, background=done)

    def _uncertainty(self, request: Request, session: Session) -> Response:
        picture = session.picture(request.path_params["id"])
        if not picture.result or not picture.result.sigma_file.exists():
            raise GoneError("The uncertainty was not estimated: tick its box first.")
        name = f"{picture.path.stem}.uncertainty.tif"
        return FileResponse(picture.result.sigma_file, filename=name)

    def _archive(self, request: Request, session: Session) -> Response:
        """Answers with a ZIP file of what the last batch has written."""
        files = {}
        failed = []
        for picture in [*session.pictures.values()]:
            if final := picture.final:
                path = final.path
                files[path.relative_to(session.finals).as_posix()] = path
            elif picture.error:
                failed.append(picture.error)
        if not files:
            raise GoneError("There are no results yet: denoise all pictures first.")
        headers = {"Content-Disposition": 'attachment; filename="denoised.zip"'}
        return StreamingResponse(
            zipped(files, failed), media_type="application/zip", headers=headers
        )

    def _adapt(self, request: Request, session: Session, asked: Any) -> None:
        minutes = asked.get("minutes")
        if (
            not isinstance(minutes, int | float)
            or isinstance(minutes, bool)
            or not 0 < minutes <= MOST_MINUTES
        ):
            received = "nothing" if minutes is None else minutes
            raise ConfigError(
                f"Give a number of minutes above 0 and up to {MOST_MINUTES}. Received: {received}"
            )
        self._line.adapt(session, float(minutes), settings_of(asked).quality)

    def _cancel_adapting(self, request: Request, session: Session) -> None:
        if session.adaptation and session.adaptation.job:
            self._queue.cancel(session.adaptation.job)


def _static(request: Request) -> Response:
    """Answers with a file of the page; only those that it names are there."""
    name = request.path_params["name"]
    if name not in _FILES:
        return refused(404, "There is no such file.")
    # With the version in its address, so a newer one is fetched.
    headers = {"Cache-Control": "private, max-age=3600"}
    return FileResponse(_FILES[name] / name, media_type=_TYPES[Path(name).suffix], headers=headers)
