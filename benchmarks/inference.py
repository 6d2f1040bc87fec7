"""Denoising pictures: seconds per megapixel and peak memory."""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Sample, Side, compare, timed
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings
from benchmarks.step import OURS, STOCK, describe
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import customised

TITLE = "Inference"
COLUMNS = (
    Column("seconds_per_megapixel", "s per MP"),
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)

_WARM_UP_PIXELS = 2**21
"""Larger pictures are not warmed up: they take minutes, of which tracing is only seconds."""


def denoiser(
    filters: int, num_modules: int, *, network: str, precision: str, **options: Any
) -> Denoiser:
    """Returns a denoiser with fresh weights; `options` are those of `DenoiseOptions`."""
    recipe = customised("cbsn", network=network, filters=filters, num_modules=num_modules)
    return Denoiser(recipe, recipe.build_network(precision), DenoiseOptions(**options))


class _Way(NamedTuple):
    """A way to denoise: makes a denoiser of a size, for pictures of up to `max_pixels`."""

    make: Callable[[int, int], Denoiser]
    max_pixels: float = float("inf")
    requires: str = "tensorflow"  # a module without which the side is omitted


_ours = functools.partial(denoiser, network=OURS)
_stock = functools.partial(denoiser, network=STOCK, tile=None)
_openvino = functools.partial(_ours, engine="openvino")
SIDES = {
    name: _Way(functools.partial(make, precision=precision), *limits)
    for name, make, precision, *limits in (
        ("float32", _ours, "float32"),
        ("bfloat16", _ours, "mixed_bfloat16"),
        ("openvino float32", _openvino, "float32", float("inf"), "openvino"),
        ("openvino bfloat16", _openvino, "mixed_bfloat16", float("inf"), "openvino"),
        ("stock float32, whole", _stock, "float32", 2**16),
        ("stock bfloat16, whole", _stock, "mixed_bfloat16", 2**16),
    )
}
"""The sides by name. The stock form takes each picture whole, so it only gets small ones."""
_BASES = ("stock float32, whole", "float32")
"""The base of all comparisons: the first of these that takes part."""


def picture(height: int, width: int) -> np.ndarray:
    """Returns a picture of random noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement; `spec` has the keys side, filters, num_modules, height and width."""
    denoise = SIDES[spec["side"]].make(spec["filters"], spec["num_modules"])
    image = picture(spec["height"], spec["width"])
    clock = timed(lambda: denoise(image))

    def measure() -> Sample:
        seconds = clock()["seconds"]
        megapixels = spec["height"] * spec["width"] / 1e6
        return {"seconds": seconds, "seconds_per_megapixel": seconds / megapixels}

    return measure


@functools.cache
def _works(name: str) -> bool:
    """Returns whether a side runs here: OpenVINO lacks some precisions on some processors."""
    way = SIDES[name]
    if way.requires == "tensorflow":
        return True
    if not importlib.util.find_spec(way.requires):
        return False
    try:
        way.make(4, 1)(picture(24, 30))
    except ConfigError as error:
        print(f"{name} is left out: {error}")
        return False
    return True


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for size in settings.sizes:
        for height, width in settings.pictures:
            names = settings.select(
                name
                for name, way in SIDES.items()
                if height * width <= way.max_pixels and _works(name)
            )
            base = next((name for name in _BASES if name in names), names[0])
            sides = []
            for name in names:
                spec = {"side": name, "filters": size.filters, "num_modules": size.num_modules}
                spec |= {"height": height, "width": width}
                facts = measure_memory("inference", spec) if settings.memory else {}
                sides.append(Side(name, make(spec), base=base, facts=facts))
            yield compare(
                f"{describe(size)}, {height}x{width}",
                sides,
                settings.repeats,
                warm_up=height * width <= _WARM_UP_PIXELS,
            )
