import contextlib
import json
import threading
import time
import urllib.parse
import warnings
from http.client import HTTPConnection
from http.cookies import SimpleCookie

import numpy as np
import pytest
import skimage.data

pytest.importorskip("starlette", reason="the extra app is not installed")
pytest.importorskip("uvicorn", reason="the extra app is not installed")

from cbsn.app.options import AppOptions
from cbsn.app.server import PageServer, listen
from cbsn.images.image_files import Picture, write_picture
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.synthetic import simulate_camera

EXACT = DenoiseOptions(precision="float32", engine="tensorflow")
MODEL = "photo"
PATIENCE = 300
"""Seconds that only a server that hangs exceeds."""


class User:
    """Somebody who uses the page, with the cookies of a browser of their own."""

    def __init__(self, port, path="/"):
        self._port = port
        self.cookies = {}
        self.status, _, self.page = self.ask("GET", path)

    def ask(self, method, path, body=None, **headers):
        """Returns status, headers and body of the answer."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Cookie": cookies, **headers})
            answer = connection.getresponse()
            for line in answer.headers.get_all("Set-Cookie") or []:
                self.cookies |= {name: each.value for name, each in SimpleCookie(line).items()}
            return answer.status, answer.headers, answer.read()

    def json(self, method, path, body=None):
        """Returns status and JSON of the answer."""
        status, _, content = self.ask(method, path, body)
        return status, json.loads(content)

    def send(self, content, name):
        """Uploads a file's content; returns status and JSON of the answer."""
        return self.json("POST", f"/api/pictures?name={urllib.parse.quote(name)}", content)

    def upload(self, path):
        """Uploads a file; returns the picture's id."""
        status, picture = self.send(path.read_bytes(), path.name)
        assert status == 201, picture
        return picture["id"]

    def state(self):
        status, state = self.json("GET", "/api/state")
        assert status == 200, state
        return state

    def picture(self, id):
        return next(each for each in self.state()["pictures"] if each["id"] == id)

    def wait(self, until=lambda state: all(p["share"] is None for p in state["pictures"])):
        """Waits until the state is as wanted, by default until no picture has a job."""
        end = time.monotonic() + PATIENCE
        while not until(state := self.state()):
            assert time.monotonic() < end, state
            time.sleep(0.02)
        return state

    def denoise(self, id, **settings):
        """Denoises a picture, and returns what is said of it then."""
        status, answer = self.json("POST", f"/api/pictures/{id}/denoise", settings)
        assert status == 200, answer
        self.wait()
        return self.picture(id)


@contextlib.contextmanager
def running(**options):
    """Runs the page in threads of this process; yields its port and server."""
    options = {"model": MODEL, "denoising": EXACT, "browser": False, "port": 0, **options}
    options = AppOptions(**options)
    with warnings.catch_warnings(), listen(options) as listening:
        port = listening.getsockname()[1]
        server = PageServer(options, port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield port, server
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.fixture(scope="package")
def server():
    with running() as (port, server):
        yield port, server


@pytest.fixture
def user(server):
    """A user of a server that others use, too."""
    user = User(server[0])
    yield user
    user.ask("DELETE", "/api/pictures")


@pytest.fixture
def noisy():
    """A noisy photograph, [64, 80, 3] uint8."""
    photograph = skimage.data.astronaut()[100:164, 150:230]
    return simulate_camera(photograph.copy(), seed=0)


@pytest.fixture
def save(tmp_path, noisy):
    """Writes a picture, by default the noisy photograph; returns the path."""

    def save_it(name="photo.png", pixels=None, **metadata):
        pixels = noisy if pixels is None else pixels
        picture = Picture(np.ascontiguousarray(np.atleast_3d(pixels)), "PNG", **metadata)
        (tmp_path / "sources").mkdir(exist_ok=True)
        path = tmp_path / "sources" / name
        write_picture(path, picture)
        return path

    return save_it
