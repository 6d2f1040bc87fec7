"""How long one waits for the package: to import it, for help, for the first denoised picture.

Each measurement is a process of its own. With the environment variable `CBSN_EARLIER` set to a
checkout of an earlier version, its scripts take turns with this version.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Side, compare, timed
from benchmarks.report import Column
from benchmarks.settings import Settings

TITLE = "Start-up: processes from their start to their end"
COLUMNS = (
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
)
VARIABLE = "CBSN_EARLIER"

_ROOT = Path(__file__).resolve().parents[1]
_SIDE = 64  # pixels; so that what is measured is the way to the first pixel


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    earlier = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        Image.fromarray(random.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)).save(
            Path(folder, "a.png")
        )
        cbsn = ["-m", "cbsn"]
        cases = {
            "import cbsn": (["-c", "import cbsn"], ["-c", "import cbsn"]),
            "cbsn --help": ([*cbsn, "--help"], [*cbsn, "--help"]),
            "cbsn denoise --help": ([*cbsn, "denoise", "--help"], ["infer.py", "--help"]),
            f"cbsn denoise, {_SIDE}x{_SIDE}": (
                [*cbsn, "denoise", "a.png", "--out", "out"],
                ["infer.py", "--imagepath", "a.png", "--savepath", "out"],
            ),
        }
        measures = [(case, *sides, _process) for case, sides in cases.items()]
        case, (now, before) = [*cases.items()][-1]
        measures.append((f"{case}, until the result is there", now, before, _until_written))
        for case, now, before, process in measures:
            comparable = earlier and _can_run(Path(earlier), before)
            sides = [Side("now", process(_ROOT, now, folder), "earlier" if comparable else None)]
            if comparable:
                sides.insert(0, Side("earlier", process(Path(earlier), before, folder)))
            yield compare(case, sides, settings.repeats)
        if find_spec("starlette") and find_spec("uvicorn"):
            picture = Path(folder, "a.png").read_bytes()
            for case, content in (("the page", None), ("a picture of it", picture)):
                measure = partial(_until_shown, folder, content)
                sides = [Side("now", measure)]
                yield compare(f"cbsn app, until {case} is there", sides, settings.repeats)


def _until_shown(folder: str, picture: bytes | None) -> dict[str, float]:
    """Measures from the start of `cbsn app` until its page, or a denoised picture, is there."""
    command = [sys.executable, "-m", "cbsn", "app", "--port", "0", "--no-browser"]
    environment = {**_environment(_ROOT), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            connection = http.client.HTTPConnection("127.0.0.1", port)
            cookie = _ask(connection, "GET", "/").headers["Set-Cookie"].partition(";")[0]
            if picture:
                _ask(connection, "POST", "/api/pictures?name=a.png", picture, cookie)
                found = _pictures(connection, cookie)
                path = f"/api/pictures/{found[0]['id']}/denoise"
                _ask(connection, "POST", path, b"{}", cookie)
                while not _pictures(connection, cookie)[0]["result"]:
                    time.sleep(0.01)
            return {"seconds": time.perf_counter() - start}
        finally:
            process.terminate()


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    cookie: str = "",
) -> http.client.HTTPResponse:
    connection.request(method, path, body, {"Cookie": cookie})
    answer = connection.getresponse()
    answer.content = answer.read()
    assert answer.status < 300, answer.content
    return answer


def _pictures(connection: http.client.HTTPConnection, cookie: str) -> list[dict[str, Any]]:
    return json.loads(_ask(connection, "GET", "/api/state", None, cookie).content)["pictures"]


def _environment(root: Path) -> dict[str, str]:
    """Returns the variables for processes with the package of a checkout.

    They may keep its bytecode, which an installed package has from the start.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(root)}


def _can_run(root: Path, arguments: Sequence[str]) -> bool:
    """Returns whether a checkout has what is to be run: the first versions had only scripts."""
    return "cbsn" not in arguments or (root / "cbsn" / "__main__.py").is_file()


def _process(root: Path, arguments: Sequence[str], folder: str) -> Any:
    """Returns a measurement of Python with these arguments, with the package of a checkout."""
    run = partial(
        subprocess.run,
        _command(root, arguments),
        cwd=folder,
        env=_environment(root),
        check=True,
        capture_output=True,
    )
    return timed(run)


def _until_written(root: Path, arguments: Sequence[str], folder: str) -> Any:
    """Returns the same until the result is there, as processes may take long to end."""

    def measure() -> dict[str, float]:
        result = Path(folder, "out", "a.png")
        result.unlink(missing_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        start = time.perf_counter()
        with subprocess.Popen(
            _command(root, arguments), cwd=folder, env=_environment(root), **quiet
        ) as process:
            while not result.exists():
                assert process.poll() is None or result.exists(), "the command failed"
                time.sleep(0.002)
            return {"seconds": time.perf_counter() - start}

    return measure


def _command(root: Path, arguments: Sequence[str]) -> list[str]:
    """Returns a command of Python, with the scripts of a checkout."""
    scripts = (str(root / each) if each.endswith(".py") else each for each in arguments)
    return [sys.executable, *scripts]
