"""Denoising on a GPU."""

import numpy as np
import pytest

from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import tensorflow as tensorflow_engine
from cbsn.inference.engines.tensorflow import TensorFlow
from cbsn.inference.options import DenoiseOptions


@pytest.fixture
def noisy(photographs, add_noise, random):
    """A photograph of 300 × 451 pixels, uint8, with noise."""
    [picture] = add_noise([photographs[1]], 15, random)
    return np.clip(255 * picture, 0, 255).round().astype("uint8")


def _assert_same_pixels(result, expected, what):
    """A sum that is off by some 1/1000 of a level falls on the other side of a half so often."""
    apart = np.abs(result.astype(int) - expected)
    assert apart.max() <= 1, what
    assert np.mean(apart) < 0.02, what
    assert result.std() > 10


@pytest.mark.gpu
def test_pixels_are_those_of_the_cpu(run_on, golden, noisy, tmp_path):
    models = ("photo", "photo_large", str(golden("small/CBSN_small.ckpt")))
    np.save(tmp_path / "noisy.npy", noisy)
    code = f"""
        import cbsn, numpy as np
        for number, model in enumerate({models!r}):
            denoise = cbsn.load_denoiser(model, precision="float32", engine="tensorflow")
            np.save(f"{{number}}.npy", denoise(np.load("noisy.npy")))
        """
    run_on("CPU:0", code)
    for number, model in enumerate(models):
        result = Denoiser.load(model, DenoiseOptions(precision="float32"))(noisy)
        _assert_same_pixels(result, np.load(tmp_path / f"{number}.npy"), model)


@pytest.mark.gpu
def test_where_memory_runs_out_pixels_stay(run_on, noisy, tmp_path):
    """Of the tiles that are computed at once, and of a picture that is not divided at all."""
    large = np.tile(noisy, (4, 3, 1))
    np.save(tmp_path / "noisy.npy", large)
    output = run_on(
        "GPU:0",
        """
        import cbsn, numpy as np, warnings
        for tile in ("auto", 0):
            denoise = cbsn.load_denoiser("photo_large", precision="float32", tile=tile)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                np.save(f"{tile}.npy", denoise(np.load("noisy.npy")))
            print("told", [str(each.message) for each in caught])
        """,
        megabytes=512,
    )
    told = [line for line in output.splitlines() if line.startswith("told")]
    assert [line.count("Too little memory") for line in told] == [1, 1], told
    expected = Denoiser.load("photo_large", DenoiseOptions(precision="float32"))(large)
    for tile in ("auto", 0):
        _assert_same_pixels(np.load(tmp_path / f"{tile}.npy"), expected, tile)


def test_tiles_have_one_shape_whatever_the_picture(device, noisy, monkeypatch):
    """A GPU first tries how to convolve each new one. Pictures smaller than a tile have theirs."""
    if device.startswith("CPU"):
        monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: True)
    compile_network, make_graph = TensorFlow.compile, tensorflow_engine.make_graph
    shapes, graphs = set(), []

    def compile_recording(*args, **kwargs):
        compiled = compile_network(*args, **kwargs)

        def run(x):
            shapes.add(x.shape[1:])
            return compiled(x)

        return run

    def make_recording(*args, **kwargs):
        graphs.append(make_graph(*args, **kwargs))
        return graphs[-1]

    monkeypatch.setattr(TensorFlow, "compile", compile_recording)
    monkeypatch.setattr(tensorflow_engine, "make_graph", make_recording)
    denoise = Denoiser.load(
        "photo", DenoiseOptions(precision="float32", engine="tensorflow", tile=128)
    )
    for height, width in ((250, 300), (287, 440), (300, 262)):
        assert denoise(noisy[:height, :width]).shape == (height, width, 3)
    assert len(shapes) == 1
    assert [graph.experimental_get_tracing_count() for graph in graphs] == [1]
