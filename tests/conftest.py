"""Shared fixtures: golden vectors, from the tree or from the folder next to the checkout."""

import contextlib
import importlib
import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Whatever proxy there is must not be asked for a server of this machine.
os.environ["no_proxy"] = "127.0.0.1"

import numpy as np
import pytest
import skimage.data

from cbsn import __main__ as commands
from cbsn import progress


def _qt_plugins():
    """Returns pytest-qt, where there are a Qt and the libraries of the system that it needs.

    By itself it would end all tests where they are missing, so pyproject.toml keeps it out.
    """
    if importlib.util.find_spec("pytestqt") and importlib.util.find_spec("qtpy"):
        with contextlib.suppress(Exception):
            importlib.import_module("qtpy.QtWidgets")
            return ["pytestqt.plugin"]
    return []


pytest_plugins = _qt_plugins()


def _take_signals():
    """Ctrl-C raises KeyboardInterrupt and others end, here and in the commands started from here.

    A shell starts what it puts into the background with Ctrl-C ignored, as `nohup` does SIGHUP, and
    all processes inherit what their parents ignore or block; what a parent handles is the default
    again in a child.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):  # Windows has neither this nor SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        ours = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)


# Fixtures of a wider scope start processes, too.
_take_signals()


def pytest_runtest_setup(item):
    """Skips tests marked `gpu` where there is none."""
    if item.get_closest_marker("gpu"):
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            pytest.skip("needs a GPU, and TensorFlow sees none")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Reports hold names of files of any bytes, but go from process to process as UTF-8."""
    report = yield
    report.sections = [(name, _printable(text)) for name, text in report.sections]
    if report.longrepr and (text := str(report.longrepr)) != _printable(text):
        report.longrepr = _printable(text)
    return report


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@pytest.fixture(autouse=True)
def signals_as_in_the_foreground():
    """Each test finds the signals so, whatever has started the tests and whatever ran before."""
    _take_signals()


@pytest.fixture(autouse=True)
def lines_are_shown():
    """What the package says is printed, as by the commands."""
    with progress.shown():
        yield


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """What engines keep for their next use, here and in the commands started from here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBSN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_is_measured(cache_folder):
    """No test finds which engine another one has measured as the fastest."""
    (cache_folder / "engines.json").unlink(missing_ok=True)
    return cache_folder


@pytest.fixture(scope="session", autouse=True)
def devices():
    """Sets the devices up as the commands do, for tests that build a network by themselves."""
    import tensorflow as tf

    from cbsn.devices import set_up

    set_up()
    tf.zeros(())  # TensorFlow starts here, in all processes alike


ROOT = Path(__file__).resolve().parent.parent
GOLDEN = (ROOT / "tests" / "golden", ROOT.parent / "shared" / "golden")


@pytest.fixture(scope="session")
def golden():
    """Path of a golden file or folder, by its path in the golden set."""

    def find(name: str) -> Path:
        for folder in GOLDEN:
            found = [*folder.glob(name), *folder.glob(f"{name}.index")]
            if found:
                return folder / name
        pytest.skip(f"golden vectors {name} are not here (they lie in shared/golden)")

    return find


@pytest.fixture(scope="session")
def small_network(golden):
    """The golden network: 16 channels, 2 modules, fresh weights of the original code."""
    from cbsn.models.loading import load_model

    return load_model(golden("small/CBSN_small.ckpt"))[1]


@pytest.fixture(scope="session")
def torch_model(golden):
    """Makes AP-BSN's or SS-BSN's golden model: its recipe, and the network with its weights."""
    from cbsn.recipes import customised

    sizes = {
        "apbsn": {"filters": 16, "num_modules": 2},
        "ssbsn": {"filters": 16, "num_modules": 3, "num_attention": 2},
    }

    def make(name: str, file: str = "wrapper_train.npz"):
        recipe = customised(name, **sizes[name])
        network = recipe.build_network()
        data = np.load(golden(f"{name}/{file}"))
        # The variables lie in the order in which PyTorch names them.
        weights = [data[key] for key in data.files if key.startswith("w/")]
        network.set_weights(weights)
        return recipe, network

    return make


@pytest.fixture
def on_cpu():
    """Computes on the CPU, which adds products up: what has no influence is exactly 0.

    GPUs may convolve by Winograd's algorithm or FFT, whose terms cancel each other but for
    rounding. What depends on what is the same on both.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):
        yield


@pytest.fixture
def volume_model(whole_numbers, on_cpu):
    """A small model of volumes with exact results: a recipe, and a network of whole numbers."""
    return whole_numbers


@pytest.fixture(scope="session")
def whole_numbers():
    """The recipe and the network of `volume_model`.

    Each output of a layer is the sum of at most three values and a bias up to 2. So thirteen layers
    make of values up to 7 none above 8·3¹³, which is less than 2²⁴: float32 adds them without
    rounding, whatever their order, and results are equal to the last bit.
    """
    from cbsn.images.stacks.scaling import Scale, Scaling
    from cbsn.recipes import customised

    scaling = Scaling("given", (Scale(0.0, 1.0, 0.0, 1.0),)).to_dict()
    recipe = customised("n2v-unet-3d", filters=4, depth=2, channels=1, scaling=scaling)
    network = recipe.build_network()
    random = np.random.default_rng(0)
    for weight in network.weights:
        value = np.zeros(weight.shape, np.float32)
        taps = value.reshape(-1, weight.shape[-1])
        if len(weight.shape) == 1:
            value[:] = random.integers(0, 3, value.shape)
        else:
            for column in taps.T:
                column[random.choice(column.size, 3, replace=False)] = random.choice([-1, 1, 1], 3)
        weight.assign(value)
    return recipe, network


@pytest.fixture
def model(tmp_path):
    """A tiny saved model of fresh weights; returns its path in the folder of the command."""
    import keras

    from cbsn.models.folder import save_model
    from cbsn.recipes import customised

    # Else a figure that is rounded in two ways may differ, now and then.
    keras.utils.set_random_seed(1)
    recipe = customised("cbsn", filters=4, num_modules=1)
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    return "model"


@pytest.fixture
def run_command(tmp_path):
    """Runs one of the commands as a user would, in an empty folder; returns the process."""
    # The commands themselves are to keep TensorFlow quiet.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    def run(script: str, *flags, timeout: int = 240):
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, flags)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd):
    """Runs a script, `python -m cbsn COMMAND` or another module in this process.

    TensorFlow need not start again, which takes most of a command's time. It is for the many uses
    of a command of which some are tried in a process of their own.
    """

    def run(command: str, *flags, folder: Path = tmp_path):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [command, *map(str, flags)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            if command in commands.COMMANDS:
                commands.run_command(command)
            elif command.endswith(".py"):
                runpy.run_path(str(ROOT / command), run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
        return subprocess.CompletedProcess(sys.argv, ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def run_python(tmp_path):
    """Runs a piece of Python in a process of its own; returns the process."""

    def run(code: str, timeout: int = 240):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def needs_engine():
    """Skips the test where an engine cannot compute in a precision."""

    from cbsn.inference.engines import ENGINES

    def check(engine: str, precision: str):
        if reason := ENGINES[engine].missing():
            pytest.skip(reason)
        if engine.startswith("onnxruntime") and precision != "float32":
            pytest.skip("ONNX Runtime computes only in float32")
        if engine != "openvino":
            return
        if precision == "mixed_bfloat16" and "ONEDNN_MAX_CPU_ISA" in os.environ:
            # It looks at the processor itself, and then has no kernel for what it has found.
            pytest.skip("ONEDNN_MAX_CPU_ISA takes bfloat16 from OpenVINO")

    return check


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def photographs():
    """Four photographs in colour, uint8, that scikit-image ships."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return [getattr(skimage.data, name)() for name in names]


@pytest.fixture(scope="session")
def walls():
    """Six gray pictures, uint8, of shaded areas with edges between them: flat for the most part."""
    rows, columns = np.mgrid[0:256, 0:256] / 256
    pictures = []
    for turn in range(6):
        shade = 80 + 10 * turn + 30 * np.cos(turn) * rows + 30 * np.sin(turn) * columns
        edge = np.sin(2 * turn) * (rows - 0.5) + np.cos(2 * turn) * (columns - 0.5)
        pictures.append((shade + 50 * (edge > 0)).astype("uint8")[..., None])
    return pictures


@pytest.fixture(scope="session")
def add_noise():
    """Adds noise of a standard deviation in 8-bit levels, filtered if asked for; float32."""

    def add(pictures, sigma, random, smooth=lambda noise: noise):
        noisy = []
        for picture in pictures:
            noise = smooth(random.normal(size=picture.shape))
            noisy.append(((picture + sigma * noise / noise.std()) / 255).astype("float32"))
        return noisy

    return add
