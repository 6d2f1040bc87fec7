import ctypes
import struct
import types
from pathlib import Path

import pytest
import tensorflow as tf

import cbsn
from cbsn import devices
from cbsn.devices import is_out_of_memory, peak_memory, reset_peak_memory, select_gpus, set_up
from cbsn.errors import ConfigError
from cbsn.models.loading import load_model
from cbsn.recipes import customised
from cbsn.training.distribution import make_strategy
from cbsn.training.trainer import Trainer
from tests.serving.served_model import ServedModel


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are two GPUs; returns what is done to them.

    These are `visible`, the ones that TensorFlow sees; `growing`, those whose memory grows;
    `limited`, to be filled with those whose memory is limited; and `in_use`, to be set to what
    TensorFlow would raise once it uses them.
    """
    there = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    state = types.SimpleNamespace(visible=list(there), growing=[], limited=[], in_use=None)

    def set_visible(devices, kind):
        if state.in_use and devices != state.visible:
            raise state.in_use
        state.visible = devices

    def set_growth(gpu, enable):
        assert enable
        if gpu in state.limited:
            raise ValueError("virtual devices configured")
        if state.in_use:
            raise state.in_use
        state.growing.append(gpu)

    def limits(gpu):
        return [tf.config.LogicalDeviceConfiguration(9)] if gpu in state.limited else None

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: there)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: state.visible)
    monkeypatch.setattr(tf.config, "set_visible_devices", set_visible)
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", limits)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_growth)
    return state


@pytest.fixture
def no_gpu(monkeypatch):
    """Pretends that there is none."""
    for name in ("list_physical_devices", "get_visible_devices"):
        monkeypatch.setattr(tf.config, name, lambda kind: [])


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(None, [0, 1]), ("all", [0, 1]), ("0", [0]), ("1", [1]), ("1,0", [0, 1])],
)
def test_gpus_are_chosen(gpus, wanted, numbers):
    assert select_gpus(wanted) == len(numbers)
    assert _numbers(gpus.visible) == _numbers(gpus.growing) == numbers


@pytest.mark.parametrize(
    ("wanted", "number"), [(None, 0), ("all", 0), ("0", 0), ("1", 1), ("1,0", 0)]
)
def test_others_are_left_free_where_one_is_enough(gpus, wanted, number):
    assert select_gpus(wanted, most=1) == 1
    assert _numbers(gpus.visible) == _numbers(gpus.growing) == [number]


def _numbers(gpus):
    return [int(gpu.name[-1]) for gpu in gpus]


def test_gpus_in_use_stay_as_they_are(gpus):
    gpus.in_use = RuntimeError("Visible devices cannot be modified after being initialized")
    assert select_gpus(None, most=1) == 2
    with pytest.raises(ConfigError, match=r"before TensorFlow uses them\. Received: --gpu 1"):
        select_gpus("1")
    assert (_numbers(gpus.visible), gpus.growing) == ([0, 1], [])


def test_a_limit_of_memory_stays(gpus):
    gpus.limited.append(gpus.visible[0])
    set_up()
    assert _numbers(gpus.growing) == [1]


def test_float32_is_multiplied_as_such():
    tf.config.experimental.enable_tensor_float_32_execution(True)
    for _ in range(2):
        set_up()
        assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("wanted", ["2", "0,5", "-1"])
def test_a_gpu_that_is_not_there_is_an_error(gpus, wanted):
    with pytest.raises(ConfigError, match=rf"sees 2 GPUs, numbered 0 to 1.*--gpu {wanted}"):
        select_gpus(wanted)
    assert (_numbers(gpus.visible), gpus.growing) == ([0, 1], [])


def test_where_there_is_none_to_ask_for_one_is_an_error(no_gpu):
    assert select_gpus(None) == 0
    with pytest.raises(ConfigError, match=r"sees 0 GPUs\. Received: --gpu\. Omit --gpu"):
        select_gpus("all")


def test_nonsense_is_an_error(gpus):
    with pytest.raises(ConfigError, match="--gpu first"):
        select_gpus("first")


@pytest.fixture
def tf32():
    """Switches on what is off in all tests; returns whether it is off again."""
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield lambda: not tf.config.experimental.tensor_float_32_execution_enabled()
    set_up()


def _load(folder):
    load_model(folder / "model")


def _load_denoiser(folder):
    cbsn.load_denoiser(folder / "model", engine="tensorflow")


def _train(folder):
    Trainer(customised("cbsn", filters=1, num_modules=1, batch_size=1))


def _serve(folder):
    signature = tf.TensorSpec((), tf.float32)
    module = tf.Module()
    module.serve = tf.function(lambda x: {"y": x}, input_signature=[signature])
    tf.saved_model.save(module, str(folder / "1"), module.serve)
    ServedModel(folder, "module")


@pytest.mark.parametrize(
    "enter", [_load, _load_denoiser, _train, _serve, lambda _: make_strategy()]
)
def test_every_entry_sets_the_devices_up(model, tmp_path, tf32, enter):
    assert not tf32()
    enter(tmp_path)
    assert tf32()


@pytest.mark.slow
def test_models_load_without_tensorflow_on_other_backends(model, run_python):
    pytest.importorskip("jax")
    result = run_python(
        """
        import os, sys
        os.environ["KERAS_BACKEND"] = "jax"
        from cbsn.models.loading import load_model
        load_model("model")
        print([name for name in sys.modules if name.split(".")[0] == "tensorflow"])
        """
    )
    assert result.stdout == "[]\n", result.stderr


CAN_FORGET = Path("/proc/self/clear_refs").exists()


def test_the_peak_grows_with_what_is_used():
    reset_peak_memory()
    before = peak_memory()
    # What is resident now counts already; where the peak is an earlier one, the block must top it.
    block = bytearray(b"x") * int((0.25 if CAN_FORGET else before + 0.25) * 2**30)
    assert peak_memory() >= before + 0.2
    del block
    assert peak_memory() >= before + 0.2


def test_the_peak_can_be_forgotten():
    if not CAN_FORGET:
        pytest.skip("only Linux can forget it")
    block = bytearray(b"x") * 2**28
    before = peak_memory()
    del block
    reset_peak_memory()
    assert peak_memory() <= before - 0.2


@pytest.fixture
def pretend(monkeypatch):
    """Pretends to be on another system, by its `sys.platform`, none of which have /proc."""

    def begin(platform):
        monkeypatch.setattr(devices, "sys", types.SimpleNamespace(platform=platform))
        monkeypatch.setattr(devices, "Path", lambda path: Path("nowhere", path.lstrip("/")))

    return begin


def test_windows_tells_the_peak(pretend, monkeypatch):
    def tell(process, counters, size):
        # PROCESS_MEMORY_COUNTERS: two numbers of 32 bits, then the peak and seven sizes more.
        assert size == 8 + 8 * ctypes.sizeof(ctypes.c_size_t)
        ctypes.memmove(counters, struct.pack("@IIN", size, 7, 3 * 2**30), struct.calcsize("@IIN"))

    kernel = types.SimpleNamespace(GetCurrentProcess=lambda: -1, K32GetProcessMemoryInfo=tell)
    # Functions take the attributes by which ctypes is told their types.
    monkeypatch.setattr(ctypes, "WinDLL", {"kernel32": kernel}.get, raising=False)
    pretend("win32")
    assert peak_memory() == 3.0
    reset_peak_memory()


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 2**10)])
def test_other_systems_tell_the_peak_in_units_of_their_own(pretend, monkeypatch, platform, unit):
    resource = pytest.importorskip("resource")
    used = types.SimpleNamespace(ru_maxrss=2**30 // unit)
    monkeypatch.setattr(resource, "getrusage", lambda who: used)
    pretend(platform)
    assert peak_memory() == 1.0


# As TensorFlow 2.21, cuDNN and ONNX Runtime word them.
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor of shape [9]"),
        tf.errors.UnknownError(
            None, None, "CUDNN failed to allocate the scratch space for the runner"
        ),
        tf.errors.InternalError(
            None, None, "No-scratch fallback runner requires nonzero scratch space"
        ),
        tf.errors.NotFoundError(
            None,
            None,
            "No algorithm worked!  Error messages:\n  Profiling failure on CUDNN engine eng11{}: "
            "RESOURCE_EXHAUSTED: Allocating 9 bytes exceeds the memory limit of 8 bytes.",
        ),
        tf.errors.NotFoundError(
            None, None, "Autotuning failed for HLO: %cudnn-conv.9 = …: No valid config found!"
        ),
        tf.errors.InternalError(None, None, "CUBLAS_STATUS_ALLOC_FAILED"),
        tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        tf.errors.AbortedError(
            None,
            None,
            "Operation received an exception:Status: 1, message: could not create a primitive, in "
            "file tensorflow/core/kernels/mkl/mkl_transpose_op.cc:96",
        ),
        RuntimeError("Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_a_lack_of_memory_is_known_by_whatever_error_it_comes(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes (3,) and (4,) do not match"),
        tf.errors.NotFoundError(
            None, None, "No algorithm worked!  Error messages:\n  NOT_SUPPORTED"
        ),
        tf.errors.InternalError(None, None, "CUDNN_STATUS_EXECUTION_FAILED"),
        tf.errors.AbortedError(
            None,
            None,
            "Operation received an exception:Status: 3, message: could not create a primitive "
            "descriptor, in file tensorflow/core/kernels/mkl/mkl_transpose_op.cc:96",
        ),
        OSError(28, "No space left on device"),
    ],
)
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)
