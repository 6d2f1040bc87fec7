"""The server of the page: `serve` starts it, and returns when it is stopped."""

import contextlib
import dataclasses
import errno
import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from urllib.parse import quote

import uvicorn

from cbsn.app.access import Guard, in_address
from cbsn.app.options import PORT, AppOptions
from cbsn.app.page import Page
from cbsn.errors import ConfigError
from cbsn.progress import say


def serve(options: AppOptions) -> None:
    """Shows the page until the process is asked to stop (SIGINT, SIGTERM).

    Args:
        options: where it is, who may use it, and how much.

    Raises:
        ConfigError: if it cannot listen there, or the GPU, precision or engine is not available.
        ModelError: if there is no such model, or it cannot be read.
    """
    with listen(options) as listening:
        server = PageServer(options, listening.getsockname()[1])
        here, *elsewhere = server.addresses
        say(f"The page is at {here} (Ctrl-C stops it).")
        for address in elsewhere:
            say(f"Others reach it at {address}")
        if options.browser and _has_desktop():
            threading.Timer(1.0, webbrowser.open, [here]).start()
        # At its end, uvicorn sends itself again the signal that has stopped it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    if server.page.failure:
        raise server.page.failure


class PageServer(uvicorn.Server):
    """The server, before it runs.

    Args:
        options: where it is, who may use it, and how much.
        port: where it is going to listen.

    Attributes:
        options: the same, with a token if one is needed.
        page: what it answers with.
    """

    def __init__(self, options: AppOptions, port: int):
        if not options.is_local and options.token is None:
            options = dataclasses.replace(options, token=secrets.token_urlsafe(24))
        self.options = options
        self.page = Page(options, port)
        self._port = port
        application = Guard(self.page.application(self._stop), options, port)
        config = uvicorn.Config(
            application,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=3,
            limit_concurrency=300,
        )
        super().__init__(config)

    def _stop(self) -> None:
        self.should_exit = True

    @property
    def addresses(self) -> list[str]:
        """The addresses of the page: for a browser on this computer, and for others if they can."""
        host = self.options.host
        hosts = ["127.0.0.1", socket.gethostname()] if host in ("0.0.0.0", "::", "") else [host]
        query = f"?token={quote(self.options.token, safe='')}" if self.options.token else ""
        return [f"http://{in_address(each)}:{self._port}/{query}" for each in hosts]


def listen(options: AppOptions) -> socket.socket:
    """Returns a socket that listens where the options say; ConfigError if that cannot be."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    if options.port is None:
        with contextlib.suppress(OSError):
            return socket.create_server((options.host, PORT), family=family)
    try:
        return socket.create_server((options.host, options.port or 0), family=family)
    except OSError as error:
        is_host = options.port is None or isinstance(error, socket.gaierror)
        is_host = is_host or error.errno == errno.EADDRNOTAVAIL
        flag, given = ("--host", options.host) if is_host else ("--port", options.port)
        raise ConfigError(
            f"The page cannot listen there: {error.strerror}. Received: {flag} {given}"
        ) from error


def _has_desktop() -> bool:
    """Returns whether there is a desktop to open a browser on, rather than a terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
