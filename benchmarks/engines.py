"""The models that ship, by all engines and precisions that are here: seconds per megapixel.

Pictures are denoised in memory, from uint8 to uint8, tile by tile. What else one could take stands
next to them: non-local means and BM3D.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.harness import Sample, Side, compare, timed_per_megapixel
from benchmarks.inference import picture
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES
from cbsn.inference.options import DenoiseOptions
from cbsn.models import SHIPPED

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
_FORMER = " (small tiles)"
_SMALL_TILES = 8  # times the receptive field's radius: the side of the U-Nets' tiles before
_CLASSIC_PIXELS = 2**20  # of the largest picture for BM3D, which takes minutes


def _sides() -> list[str]:
    """Returns the names of the sides that work here: an engine and a precision."""
    names = []
    for engine in ENGINES.values():
        for short, precision in _PRECISIONS.items():
            fits = engine.name in ("tensorflow", "openvino") or precision == "float32"
            if fits and not engine.missing():
                names.append(f"{engine.name} {short}")
    classic = ["BM3D"] if importlib.util.find_spec("bm3d") else []
    return [*names, f"{_BASE}{_FORMER}", "non-local means", *classic]


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement; `spec` has the keys side, model, height and width."""
    image = picture(spec["height"], spec["width"])
    denoise = _method(spec["side"], spec["model"])
    return timed_per_megapixel(lambda: denoise(image), spec["height"] * spec["width"])


def _method(side: str, model: str) -> Callable[[np.ndarray], Any]:
    if side == "non-local means":
        import skimage.restoration

        remove = skimage.restoration.denoise_nl_means
        return lambda image: remove(image / 255, sigma=0.1, h=0.06, channel_axis=-1)
    if side == "BM3D":
        import bm3d

        return lambda image: bm3d.bm3d_rgb(image / 255, 0.1)
    engine, precision = side.removesuffix(_FORMER).split()
    options = DenoiseOptions(engine=engine, precision=_PRECISIONS[precision])
    if side.endswith(_FORMER):
        radius = Denoiser.load(SHIPPED / model, options).network.receptive_field_radius
        options = dataclasses.replace(options, tile=_SMALL_TILES * radius)
    return Denoiser.load(SHIPPED / model, options)


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for model in ("photo", "photo_large"):
        for height, width in settings.pictures:
            yield _case(settings, model, height, width)


def _case(settings: Settings, model: str, height: int, width: int) -> dict[str, Any]:
    slow = [] if height * width <= _CLASSIC_PIXELS else ["BM3D", "non-local means"]
    names = settings.select(name for name in _sides() if name not in slow)
    sides = []
    for name in names:
        spec = {"side": name, "model": model, "height": height, "width": width}
        facts = measure_memory("engines", spec) if settings.memory else {}
        base = _BASE if _BASE in names else names[0]
        sides.append(Side(name, make(spec), base=base, facts=facts))
    return compare(f"{model}, {height}x{width}", sides, settings.repeats)
