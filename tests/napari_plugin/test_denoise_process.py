"""Tests of `cbsn.napari_plugin.denoise_process`."""

import io
import pickle
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from cbsn.errors import CbsnWarning
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.napari_plugin import denoise_process, processes
from cbsn.napari_plugin.denoise_process import DenoiseError, DenoiseProcess, serve
from cbsn.napari_plugin.denoising import Cancelled, ModelFacts, facts_of

SCALE = Scale(0.0, 1.0, 0.0, 1.0)
PLANES = np.ones((2, 4, 5), np.float32)


class StandIn:
    """A denoiser that says what it is asked for."""

    scaling = Scaling("range", (SCALE,))
    network = SimpleNamespace(z_halo=16, z_grid=2)

    def __init__(self, of_volumes=False):
        self.of_volumes = of_volumes

    def scaled(self, planes, scale, on_tile):
        warnings.warn("Slow.", CbsnWarning, stacklevel=1)
        warnings.warn("This is not for users.", stacklevel=1)
        print("a library prints")
        on_tile(0.25)
        on_tile(0.75)
        return planes * 2


def served(monkeypatch, *messages):
    """What the serving side answers to these messages."""
    monkeypatch.setattr(denoise_process, "load_denoiser", lambda model, tile: StandIn())
    requests = io.BytesIO(b"".join(map(pickle.dumps, messages)))
    answers = io.BytesIO()
    serve(requests, answers)
    answers.seek(0)
    found = []
    while answers.tell() < len(answers.getvalue()):
        found.append(pickle.load(answers))
    return found


def test_the_serving_side(monkeypatch):
    found = served(monkeypatch, ("photo", 0), ("photo", 0, PLANES, SCALE), True, True)
    kinds = [kind for kind, _ in found]
    assert kinds == ["answer", "warning", "share", "share", "answer"]
    assert [value for _, value in found[:4]] == [ModelFacts(StandIn.scaling), "Slow.", 0.25, 0.75]
    np.testing.assert_array_equal(found[-1][1], PLANES * 2)


def test_the_facts_of_a_model_of_volumes():
    assert facts_of(StandIn(of_volumes=True)) == ModelFacts(StandIn.scaling, 16, 2)


def test_it_stops_and_goes_on_serving(monkeypatch):
    scaling, work = ("photo", 0), ("photo", 0, PLANES, SCALE)
    found = served(monkeypatch, scaling, work, False, scaling)
    assert [kind for kind, _ in found] == ["answer", "warning", "share", "error", "answer"]


CHILD = """
import sys
from cbsn.napari_plugin import denoise_process
class StandIn:
    scaling = None
    of_volumes = False
    def __init__(self, factor):
        self.factor = factor
    def scaled(self, planes, scale, on_tile):
        print("a library prints", flush=True)
        on_tile(0.5)
        if planes.max() > 5:
            sys.exit(1)
        return planes * self.factor
def load(model, tile):
    if model == "missing":
        raise FileNotFoundError("no such model")
    return StandIn(3 if model == "thrice" else 2)
denoise_process.load_denoiser = load
denoise_process.main()
"""


@pytest.fixture
def process(monkeypatch):
    command = [sys.executable, "-c", CHILD]
    monkeypatch.setattr(processes, "module_command", lambda module: command)
    made = DenoiseProcess()
    yield made
    made.close()


def test_both_sides(process):
    assert process.facts("photo", 0) == ModelFacts()
    shares = []
    result = process.denoise("photo", 0, PLANES, SCALE, shares.append)
    np.testing.assert_array_equal(result, PLANES * 2)
    assert shares == [0.5]
    with pytest.raises(DenoiseError, match="no such model"):
        process.facts("missing", 0)


def test_each_widget_has_its_own_model(process):
    """They share the process, and may be at work at the same time."""
    for _ in range(2):
        for model, factor in (("photo", 2), ("thrice", 3)):
            result = process.denoise(model, 0, PLANES, SCALE)
            np.testing.assert_array_equal(result, PLANES * factor)


def test_the_work_is_ended_from_this_side(process):
    def report(share):
        raise Cancelled

    with pytest.raises(Cancelled):
        process.denoise("photo", 0, PLANES, SCALE, report)
    np.testing.assert_array_equal(process.denoise("photo", 0, PLANES, SCALE), PLANES * 2)


def test_it_starts_again_after_it_has_crashed(process):
    with pytest.raises(DenoiseError, match="has ended unexpectedly"):
        process.denoise("photo", 0, PLANES * 9, SCALE)
    np.testing.assert_array_equal(process.denoise("photo", 0, PLANES, SCALE), PLANES * 2)


def test_the_process_finds_the_package(tmp_path, monkeypatch):
    """It is that of this process, wherever napari was started."""
    monkeypatch.chdir(tmp_path)
    code = "import cbsn; print(cbsn.__file__)"
    with processes.start([sys.executable, "-c", code]) as process:
        path = process.communicate()[0].decode().strip()
    assert path == sys.modules["cbsn"].__file__


def test_models_are_loaded_once(monkeypatch, tmp_path):
    from cbsn.inference import denoiser
    from cbsn.napari_plugin.denoising import load_denoiser

    loaded = []
    load = lambda model, options: loaded.append((model, options.tile)) or SimpleNamespace()  # noqa: E731
    monkeypatch.setattr(denoiser.Denoiser, "load", load)
    folder = tmp_path / "last"
    folder.mkdir()
    for _ in range(2):
        load_denoiser(str(tmp_path), 0)
    (folder / "recipe.json").touch()  # the training has gone on
    load_denoiser(str(tmp_path), 0)
    load_denoiser(str(tmp_path), 256)
    assert loaded == [(str(tmp_path), "auto")] * 2 + [(str(tmp_path), 256)]
