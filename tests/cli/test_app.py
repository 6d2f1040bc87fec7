import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the extra app is not installed")

from cbsn.app import server
from cbsn.app.options import PORT, AppOptions
from cbsn.app.server import listen
from cbsn.cli import app
from cbsn.errors import ConfigError


@pytest.fixture
def served(monkeypatch):
    """The options with which the page would be shown."""
    found = []
    monkeypatch.setattr(server, "serve", found.append)
    return found


def _run(*flags):
    app.main(app.make_parser().parse_args([*flags]))


def test_flags_become_options(served):
    _run("--host", "0.0.0.0", "--port", "80", "--no-browser", "--gpu", "1", "--max_file_mb", "5")
    _run("--model", "mine", "--engine", "tensorflow", "--tile", "64")
    first, second = served
    assert (first.host, first.port, first.browser, first.gpu) == ("0.0.0.0", 80, False, "1")
    assert first.max_file_mb == 5 and first.model is None
    assert (second.model, second.denoising.engine, second.denoising.tile) == (
        "mine",
        "tensorflow",
        "64",
    )
    assert second.host == "127.0.0.1" and second.browser


def test_the_token_may_be_in_the_environment(served, monkeypatch):
    monkeypatch.setenv("CBSN_TOKEN", "of the environment")
    _run()
    _run("--token", "of the flag itself")
    monkeypatch.setenv("CBSN_TOKEN", "")
    _run()
    assert [each.token for each in served] == ["of the environment", "of the flag itself", None]
    monkeypatch.setenv("CBSN_TOKEN", "short")
    with pytest.raises(ConfigError, match="16 or more"):
        _run()


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(name, monkeypatch):
    for module in [*sys.modules]:
        if module.startswith(("cbsn.app.", name)):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    if name == "starlette":
        monkeypatch.setitem(sys.modules, "starlette.datastructures", None)
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[app\]'"):
        _run()


def test_a_port_that_is_taken_is_named_unless_any_would_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}"):
            listen(AppOptions(port=port))
    with listen(AppOptions()) as first, listen(AppOptions()) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
    assert ports[0] != ports[1] and ports[1] != PORT


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_a_host_that_is_not_here_is_named(host):
    with pytest.raises(ConfigError, match=f"--host {host}"):
        listen(AppOptions(host=host))


def test_the_page_does_not_wait_for_tensorflow():
    code = "import cbsn.app.server, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@contextlib.contextmanager
def _started(folder, *flags):
    """Starts the command; yields its process and the page's address."""
    command = [sys.executable, "-m", "cbsn", "app", "--port", "0", "--no-browser", *flags]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            yield process, re.search(r"http://\S+", line)[0]
        finally:
            process.kill()


def _is_well(address):
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}health") as answer:
        return answer.read() == b"ok\n"
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_asked_to_and_leaves_nothing(tmp_path, stop):
    with _started(tmp_path) as (process, address):
        while not _is_well(address):
            time.sleep(0.05)
        assert [path.name[:9] for path in tmp_path.iterdir()] == ["cbsn-app-"]
        process.send_signal(stop)
        rest = process.stdout.read()
        assert process.wait() == 0 and "Traceback" not in rest, rest
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_what_a_killed_server_left_is_deleted_by_the_next(tmp_path):
    with _started(tmp_path) as (process, address):
        while not _is_well(address):
            time.sleep(0.05)
        process.kill()
        process.wait()
    (left,) = tmp_path.iterdir()
    with _started(tmp_path) as (_, address):
        while not _is_well(address):
            time.sleep(0.05)
        (now,) = tmp_path.iterdir()
        assert now != left


@pytest.mark.slow
def test_a_model_that_is_not_there_ends_it(tmp_path):
    with _started(tmp_path, "--model", "nowhere") as (process, _):
        rest = process.stdout.read()
        assert process.wait() == 2
    assert "error: " in rest and "nowhere" in rest and "Traceback" not in rest
    assert [*tmp_path.iterdir()] == []
