"""The wheel and the sdist: what they hold, and that the commands run where only they are."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.transform
from packaging.requirements import Requirement
from PIL import Image

from cbsn.noise.synthetic import simulate_camera

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "cbsn", "data_prep", "docs", "pretrained", "tests")

BUILD = """
import setuptools.build_meta as backend, sys
print(getattr(backend, sys.argv[1])(sys.argv[2]))
"""


def _run(*command, folder):
    """Runs a command in a folder without the tests' PYTHONPATH; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def _make_environment(folder):
    """Makes an empty virtual environment; returns its Python."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder, folder=ROOT)
    return folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def _install(python, *requirements):
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    _run(*pip, *requirements, folder=python.parent)


@pytest.fixture(scope="module")
def project():
    """The table `project` of pyproject.toml, and the requirements of the build."""
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return content["project"] | {"build": content["build-system"]["requires"]}


@pytest.fixture(scope="module")
def build(tmp_path_factory, project):
    """Builds an sdist or a wheel from a folder; returns its path."""
    python = _make_environment(tmp_path_factory.mktemp("builder"))
    _install(python, *project["build"])

    def make(kind, source):
        out = tmp_path_factory.mktemp(kind)
        printed = _run(python, "-c", BUILD, f"build_{kind}", out, folder=source)
        return out / printed.splitlines()[-1]

    return make


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout in which an earlier version was built."""
    folder = tmp_path_factory.mktemp("source")
    generated = shutil.ignore_patterns("__pycache__", "_build", "gallery")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=generated)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    stale = folder / "build/lib/cbsn/removed.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    return folder


@pytest.fixture(scope="module")
def sdist(build, source):
    return build("sdist", source)


@pytest.fixture(scope="module")
def wheel(build, source):
    return build("wheel", source)


def _contents(wheel):
    """The files of a wheel but for its record, by name."""
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if not name.endswith("/RECORD")]
        return {name: file.read(name) for name in names}


def _metadata(wheel):
    contents = _contents(wheel)
    return email.message_from_bytes(next(contents[n] for n in contents if n.endswith("/METADATA")))


def test_the_wheel_holds_the_package_and_nothing_else(wheel, source):
    contents = _contents(wheel)
    expected = {
        f"{prefix}{path.relative_to(source).as_posix()}"
        for prefix, name in (("", "cbsn"), ("", "data_prep"), ("cbsn/", "pretrained"))
        for path in (source / name).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert {name for name in contents if ".dist-info/" not in name} == expected
    for name, content in contents.items():
        if name.startswith("cbsn/pretrained/"):
            assert content == (source / name.removeprefix("cbsn/")).read_bytes(), name


def test_the_metadata_is_that_of_pyproject(wheel, project):
    metadata = _metadata(wheel)
    assert metadata["Version"] == project["version"]
    python = metadata["Requires-Python"].split(",")
    assert {*python} == {*project["requires-python"].split(",")}
    expected = {Requirement(each) for each in project["dependencies"]}
    for extra, requirements in project["optional-dependencies"].items():
        for each in requirements:
            text, _, marker = each.partition(";")
            condition = f"{marker} and extra == '{extra}'" if marker else f"extra == '{extra}'"
            expected.add(Requirement(f"{text}; {condition}"))
    assert {*map(Requirement, metadata.get_all("Requires-Dist"))} == expected
    (commands,) = [
        content.decode()
        for name, content in _contents(wheel).items()
        if name.endswith("/entry_points.txt")
    ]
    found = re.search(r"\[console_scripts\]\s+cbsn = ([\w.]+):(\w+)", commands)
    assert found and found[2] in (ROOT / f"{found[1].replace('.', '/')}.py").read_text("utf-8")


def test_the_sdist_makes_the_same_wheel(sdist, wheel, build, tmp_path):
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    kept = {path.name for path in folder.iterdir()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pretrained"} <= kept
    assert not kept & {"benchmarks", "build", "docs", "tests"}
    assert _contents(build("wheel", folder)) == _contents(wheel)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment with the wheel, which sees the other packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    python = _make_environment(folder)
    _install(python, "--no-deps", wheel)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_run(python, "-c", code, folder=folder).strip())
    here = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    # After its own packages, so that the wheel comes before another cbsn.
    (packages / "others.pth").write_text("\n".join(sorted(here)))
    return python


def _mean_square(first, second):
    return np.mean((first.astype(float) - second.astype(float)) ** 2)


def test_the_commands_run_in_an_empty_folder(installed, tmp_path):
    command = installed.with_name("cbsn")
    models = _run(command, "models", folder=tmp_path)
    assert "photo-large" in models
    version = _run(command, "--version", folder=tmp_path).split()[-1]
    assert version in _run(command, "info", folder=tmp_path)
    assert "--workers" in _run(command, "launch", "--help", folder=tmp_path)
    # It starts the command of the same environment, so a clone is not needed.
    workers = _run(command, "launch", "--workers", 1, "--", "--help", folder=tmp_path)
    assert "--name" in workers
    assert [*tmp_path.iterdir()] == []


def test_a_picture_is_denoised_in_an_empty_folder(installed, tmp_path):
    clean = skimage.transform.resize(skimage.data.rocket(), (128, 128), anti_aliasing=True)
    clean = np.rint(clean * 255).astype("uint8")
    Image.fromarray(simulate_camera(clean)).save(tmp_path / "photo.jpg", quality=98)
    _run(installed.with_name("cbsn"), "denoise", "photo.jpg", folder=tmp_path)
    (result,) = (tmp_path / "denoised").iterdir()
    noisy, denoised = (np.asarray(Image.open(path)) for path in (tmp_path / "photo.jpg", result))
    assert _mean_square(denoised, clean) < _mean_square(noisy, clean) / 2


LIBRARY = """
import importlib.metadata, sys
import cbsn, data_prep
from packaging.requirements import Requirement

for module in (cbsn, data_prep):
    assert module.__file__.startswith(sys.prefix), module.__file__
assert cbsn.__version__ == importlib.metadata.version("cbsn")
for each in map(Requirement, importlib.metadata.requires("cbsn")):
    if each.marker is None or each.marker.evaluate({"extra": ""}):
        found = importlib.metadata.version(each.name)
        assert each.specifier.contains(found, prereleases=True), f"{each}: {found}"

import numpy as np

noisy = np.random.default_rng(0).normal(128, 20, (64, 96, 3)).clip(0, 255).astype("uint8")
denoised = cbsn.denoise(noisy, model="photo")
assert (denoised.shape, denoised.dtype) == (noisy.shape, noisy.dtype)
assert denoised.std() < noisy.std() / 2
"""


def test_the_library_is_that_of_the_wheel(installed, tmp_path):
    _run(installed, "-c", LIBRARY, folder=tmp_path)
    assert [*tmp_path.iterdir()] == []
