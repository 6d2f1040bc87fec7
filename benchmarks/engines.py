"""The models that ship, by all engines and precisions that are here: seconds per megapixel.

Pictures are denoised in memory, from uint8 to uint8, tile by tile. What else one could take stands
next to them: non-local means and BM3D.

An engine's *peak* is the time that the operations of the network's convolutions would take at the
speed of one large convolution in the same engine, without the rims of tiles. The rest is the most
that can still be gained.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.convolutions import total_flop
from benchmarks.graph import find_convolutions
from benchmarks.harness import Sample, Side, compare, timed_per_megapixel
from benchmarks.inference import picture
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES, network_pass
from cbsn.inference.options import DenoiseOptions
from cbsn.models import SHIPPED
from cbsn.models.loading import load_model

TITLE = "Engines"
COLUMNS = (
    Column("seconds_per_megapixel", "s per MP"),
    Column("cpu_seconds_per_megapixel", "CPU s per MP"),
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)

_PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
_BASE = "tensorflow float32"
_PEAK = " at its peak"
_CHANNELS, _SIDE = 512, 96  # of the large convolution
_COUNTED_SIDE = 512  # of the picture whose operations are counted
_SLOW = ("BM3D", "non-local means of scikit-image")
_SLOW_PIXELS = 2**20  # of the largest picture for these, which take minutes
_OPENCV = "non-local means of OpenCV"


def _sides() -> list[str]:
    """Returns the names of the sides that work here: an engine and a precision."""
    names = []
    for engine in ENGINES.values():
        for short, precision in _PRECISIONS.items():
            fits = engine.name in ("tensorflow", "openvino") or precision == "float32"
            if fits and not engine.missing():
                names += [f"{engine.name} {short}", f"{engine.name} {short}{_PEAK}"]
    modules = {"bm3d": _SLOW[0], "skimage": _SLOW[1], "cv2": _OPENCV}
    return [*names, *(modules[each] for each in modules if importlib.util.find_spec(each))]


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement; `spec` has the keys side, model, height and width."""
    pixels = spec["height"] * spec["width"]
    if spec["side"].endswith(_PEAK):
        return _peak(spec["side"].removesuffix(_PEAK), spec["model"], pixels)
    image = picture(spec["height"], spec["width"])
    denoise = _method(spec["side"], spec["model"])
    return timed_per_megapixel(lambda: denoise(image), pixels)


def _method(side: str, model: str) -> Callable[[np.ndarray], Any]:
    if side == _OPENCV:
        import cv2

        return lambda image: cv2.fastNlMeansDenoisingColored(image, None, 10, 10)
    if side == _SLOW[1]:
        import skimage.restoration

        remove = skimage.restoration.denoise_nl_means
        return lambda image: remove(image / 255, sigma=0.1, h=0.06, channel_axis=-1)
    if side == _SLOW[0]:
        import bm3d

        return lambda image: bm3d.bm3d_rgb(image / 255, 0.1)
    engine, precision = side.split()
    options = DenoiseOptions(engine=engine, precision=_PRECISIONS[precision])
    return Denoiser.load(SHIPPED / model, options)


def _peak(side: str, model: str, pixels: int) -> Callable[[], Sample]:
    """Returns a measurement of a large convolution, as the seconds that a model would take."""
    engine, precision = side.split()
    policy = _PRECISIONS[precision]
    recipe = SimpleNamespace(network="Convolution", border="zeros", build_network=_Convolution)
    run = ENGINES[engine].compile(recipe, _Convolution(policy), blind=False)  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(1, _SIDE, _SIDE, _CHANNELS)).astype(np.float32)
    as_many = 2 * 9 * _CHANNELS**2 * _SIDE**2 / _flop_per_pixel(model)  # pixels of the model's
    clock = timed_per_megapixel(lambda: np.asarray(run(x)), as_many)

    def measure() -> Sample:
        sample = clock()
        return {**sample, "seconds": sample["seconds_per_megapixel"] * pixels / 1e6}

    return measure


class _Convolution(keras.Model):
    """A network of one large convolution."""

    dimensions, grid, num_attention, channels = 2, 1, 0, _CHANNELS

    def __init__(self, dtype: str = "float32"):
        super().__init__(dtype=dtype, name="convolution")
        self._layer = keras.layers.Conv2D(_CHANNELS, 3, padding="same", dtype=dtype)
        self._layer.build((None, None, None, _CHANNELS))
        self.built = True

    def call(self, x: Any, blind: bool = False, padding: str = "same") -> Any:
        """Returns float32 [N, h, w, C]."""
        return keras.ops.cast(self._layer(x), "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns what the network is made from."""
        return {"channels": _CHANNELS}


@functools.cache
def _flop_per_pixel(model: str) -> float:
    """Returns the operations of a model's convolutions for each pixel of its input."""
    recipe, network = load_model(SHIPPED / model, precision="float32")
    shape = (1, _COUNTED_SIDE, _COUNTED_SIDE, network.channels)
    function = tf.function(network_pass(recipe, network, blind=False))
    traced = function.get_concrete_function(tf.TensorSpec(shape))
    return total_flop(find_convolutions(traced)) / _COUNTED_SIDE**2


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for model in ("photo", "photo_large"):
        for height, width in settings.pictures:
            yield _case(settings, model, height, width)


def _case(settings: Settings, model: str, height: int, width: int) -> dict[str, Any]:
    slow = () if height * width <= _SLOW_PIXELS else _SLOW
    names = settings.select(name for name in _sides() if name not in slow)
    sides = []
    for name in names:
        spec = {"side": name, "model": model, "height": height, "width": width}
        facts = measure_memory("engines", spec) if settings.memory else {}
        base = _BASE if _BASE in names else names[0]
        sides.append(Side(name, make(spec), base=base, facts=facts))
    return compare(f"{model}, {height}x{width}", sides, settings.repeats)
