"""Who may use the page: this computer alone, or those who have the token."""

import asyncio
import contextlib
import hashlib
import hmac
import re

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbsn.app.options import AppOptions

HEALTH = "/health"
"""Where monitors ask whether the server is well; it needs no token."""

_LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}

# The page fetches nothing from other servers, whatever the names of files hold.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def in_address(host: str) -> str:
    """Returns a host's name, or its number, as an address has it."""
    return f"[{host}]" if ":" in host else host


def cookie_name(what: str, port: int) -> str:
    """Returns the name of a cookie; browsers share cookies among the ports of a computer."""
    return f"cbsn_{what}_{port}"


class Guard:
    """Refuses requests of those who may not use the page, as an ASGI middleware.

    - A page for this computer alone answers only to its names: a foreign page whose name leads
      here (DNS rebinding) gets nothing.
    - Otherwise a token is needed, in the address at first (`/?token=…`), then in a cookie.
    - Requests that change something must come from the page itself.

    Args:
        app: what answers those who may.
        options: the host, and the token if there is one.
        port: where the server listens.
    """

    def __init__(self, app: ASGIApp, options: AppOptions, port: int):
        self._app = app
        self._is_local = options.is_local
        self._names = {*_LOCAL_NAMES, in_address(options.host)}
        self._token = options.token
        # The cookie, which takes no other letters than those of ASCII, has the token's hash.
        self._key = hashlib.sha256((options.token or "").encode()).hexdigest()
        self._cookie = cookie_name("token", port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        with contextlib.suppress(asyncio.CancelledError):  # when the server stops
            await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Returns an answer in the place of the app's, or None if the request is allowed."""
        headers = request.headers
        host = headers.get("host", "")
        if self._is_local and re.sub(r":\d+$", "", host) not in self._names:
            return _refused(
                400, "This server answers only to its names on this computer, such as localhost."
            )
        origin = headers.get("origin")
        if request.method not in ("GET", "HEAD") and not _is_same(origin, host):
            return _refused(403, "Only the page itself may change something.")
        if request.url.path == HEALTH or self._token is None:
            return None
        if _is_same_secret(request.query_params.get("token"), self._token):
            answer = RedirectResponse("/", 303)
            # Sent also to who comes by a link; what changes something is checked above.
            answer.set_cookie(self._cookie, self._key, httponly=True, samesite="lax")
            return answer
        if _is_same_secret(request.cookies.get(self._cookie), self._key):
            return None
        text = "Open the page by the address with the token that the server printed at its start."
        if request.url.path.startswith("/api/"):
            return _refused(401, text)
        return PlainTextResponse(f"{text}\n", 401)


def _is_same_secret(given: str | None, secret: str) -> bool:
    """Compares in a time that tells nothing of where they differ."""
    return given is not None and hmac.compare_digest(given.encode(), secret.encode())


def _is_same(origin: str | None, host: str) -> bool:
    """Returns whether a request comes from a page of this server, or from no page at all."""
    return origin is None or origin.partition("://")[2] == host


def _refused(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)
