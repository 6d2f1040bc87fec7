"""Which engine denoises: the one asked for, or the fastest here whose results are right."""

import dataclasses
import importlib.metadata
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import cbsn
from cbsn.devices import has_gpu
from cbsn.errors import ConfigError, plain_reason
from cbsn.inference.engines import ENGINES, cache
from cbsn.inference.engines.engine import Engine, Frozen, Run, frozen_in_float32
from cbsn.inference.passes import auto_side
from cbsn.inference.pixels import Units
from cbsn.machine import available_cores, processor
from cbsn.progress import say
from cbsn.recipes import Recipe

AUTO, AGAIN = "auto", "auto!"
"""Values of `--engine` by which the engine is measured, once or anew."""

_SIDE = 256  # of the test picture's result, in pixels
_VOLUME = (16, 112, 112)  # of the test volume: planes, rows and columns, about as many voxels
_WORTH = 100  # times as many pixels as the test picture has; it is computed some ten times
_LONG = 1.0  # seconds of a pass that need not be measured twice
_GAIN = 1.05  # times as fast as TensorFlow that another engine has to be, as timings vary

# What results in float32 may differ by from TensorFlow's on the CPU: one of 255 levels, in all but
# this share of the values.
_LEVEL, _SHARE = 1 / 255, 1e-4


@dataclasses.dataclass(frozen=True)
class Choice:
    """An engine, and why it was chosen.

    Args:
        engine: the engine.
        why: the reason, in words.
        is_open: whether measuring may choose another one.
    """

    engine: Engine
    why: str
    is_open: bool = False


def choose_engine(wanted: str, precision: str, recipe: Recipe, network: Any) -> Choice:
    """Resolves `--engine` without measuring anything.

    Args:
        wanted: one of `ENGINES`; or "auto" for what was measured before, and TensorFlow where
            nothing was; or "auto!" for TensorFlow until it is measured anew.
        precision: what `--precision` asks for; "auto" lets an engine have its own.
        recipe: the model's recipe.
        network: the model's network.

    Raises:
        ConfigError: if `wanted` is unknown or not installed, or cannot run the network, or not in
            the given precision.
    """
    if wanted not in (AUTO, AGAIN):
        if wanted not in ENGINES:
            raise ConfigError(
                f"--engine must be auto or one of {', '.join(ENGINES)}. Received: --engine {wanted}"
            )
        engine = ENGINES[wanted]
        if why_not := engine.missing() or engine.unfit(network, precision):
            received = f"--engine {wanted} --precision {precision}"
            raise ConfigError(f"{why_not}. Received: {received}")
        return Choice(engine, "as requested")
    first = ENGINES["tensorflow"]
    if keras.backend.backend() != "tensorflow":
        return Choice(first, f"with the backend {keras.backend.backend()}, there is no other")
    if has_gpu():
        return Choice(first, "it computes on the GPU")
    if measured := cache.measured() if wanted == AUTO else {}:
        known = measured.get(_key(precision, recipe, network), {})
        fastest = ENGINES.get(str(known.get("engine")))
        if fastest and not fastest.missing():
            return Choice(fastest, str(known.get("why")))
    # Stops at the first, because some take a while to look for.
    if any(engine is not first for engine in _usable(network, precision)):
        return Choice(first, "not compared with others for so little work", is_open=True)
    return Choice(first, "no other one is installed that can compute this network")


def is_worth_measuring(network: Any, pixels: int) -> bool:
    """Returns whether denoising this many pixels takes much longer than measuring does."""
    return pixels >= _WORTH * math.prod(_size(network))


def measure(precision: str, recipe: Recipe, network: Any) -> Choice:
    """Measures the installed engines on a test picture, and remembers the fastest.

    An engine whose result is wrong is not used, see `fault`. Arguments as for `choose_engine`.
    """
    engines = [*_usable(network, precision)]
    say(f"Comparing {', '.join(engine.name for engine in engines)}, once on this machine.")
    seconds, refused = {}, {}
    single = frozen_in_float32(recipe, network, blind=_blind(network))
    expected, x, deviation = _reference(recipe, network, single)
    for engine in engines:
        try:
            run = engine.compile(recipe, network, blind=_blind(network), single=single)
            result, taken = _timed(run, x)
        except Exception as error:  # of any library, and it is only tried
            refused[engine.name] = f"fails ({plain_reason(error)})"
            continue
        if wrong := fault(result, expected, deviation, network):
            refused[engine.name] = wrong
        else:
            seconds[engine.name] = _per_megapixel(taken / math.prod(x.shape[1:-1]), network, engine)
    by_speed = sorted(seconds, key=lambda name: seconds[name]) or ["tensorflow"]
    best = by_speed[0]
    if "tensorflow" in seconds and seconds["tensorflow"] < _GAIN * seconds[best]:
        best = "tensorflow"
    why = "fastest here" if len(seconds) > 1 else "the only one that works here"
    rates = ", ".join(f"{name} {seconds[name]:.2f}" for name in by_speed if name in seconds)
    unit = "megavoxel" if network.dimensions == 3 else "megapixel"
    why += f" ({rates} s per {unit})"
    for name, reason in refused.items():
        why += f"; {name} {reason}"
    known = {
        "about": f"{recipe.network} of {network.count_params():,} parameters, {precision}",
        "engine": best,
        "why": why,
        "seconds_per_megapixel": seconds,
        "refused": refused,
    }
    cache.add_measured(_key(precision, recipe, network), known)
    return Choice(ENGINES[best], why)


def check(engine: Engine, recipe: Recipe, network: Any) -> None:
    """Raises a ConfigError if the results of an engine that was asked for are wrong."""
    single = frozen_in_float32(recipe, network, blind=_blind(network))
    expected, x, deviation = _reference(recipe, network, single)
    run = engine.compile(recipe, network, blind=_blind(network), single=single)
    if wrong := fault(np.asarray(run(x)), expected, deviation, network):
        raise ConfigError(
            f"{engine.name} {wrong}: use another engine, such as --engine tensorflow. "
            f"Received: --engine {engine.name}"
        )


def fault(
    result: np.ndarray, expected: np.ndarray, deviation: np.ndarray, network: Any
) -> str | None:
    """Returns what is wrong with an engine's result, in words; None if it is right.

    In float32, at most one of 10,000 values may differ by more than one of 255 levels. In 16 bits,
    n roundings of 8 or 11 bits each may add up, independently of each other, to √n times one of
    them, relative to the size of the result. A convolution makes three: of its kernel, its sums,
    and the sums with their bias.

    Args:
        result: the engine's result, [1, (z,) h, w, C].
        expected: TensorFlow's in float32, of the same shape.
        deviation: [C], by which results are multiplied to make pixels in [0, 1] of them.
        network: gives its precision.
    """
    if result.shape != expected.shape:
        return f"returns the shape {result.shape} in place of {expected.shape}"
    if not np.isfinite(result).all():
        return "returns values that are not finite"
    apart = np.abs(result - expected) * deviation
    precision = network.dtype_policy.name
    if precision == "float32":
        share = np.mean(apart > _LEVEL)
        if share > _SHARE:
            return f"differs by up to {255 * apart.max():.1f} of 255 levels, in {share:.2%}"
        return None
    step = 2.0**-8 if precision == "mixed_bfloat16" else 2.0**-11
    roundings = 3 * sum(len(weights.shape) > 1 for weights in network.weights)
    error = math.sqrt(np.mean(np.square(apart)) / np.mean(np.square(expected * deviation)))
    if error > math.sqrt(roundings) * step:
        return f"differs by {error:.1%} of the result's size"
    return None


def listed() -> Iterator[str]:
    """Yields what was measured on this machine, a line for each model, for `cbsn info`."""
    for key, result in cache.measured().items():
        if key.endswith(_machine()):
            yield f"{result.get('about')}: {result.get('engine')}: {result.get('why')}"


def _usable(network: Any, precision: str) -> Iterator[Engine]:
    """Finds the engines that can run a network here."""
    for engine in ENGINES.values():
        if not (engine.missing() or engine.unfit(network, precision)):
            yield engine


def _blind(network: Any) -> bool:
    return network.blindness == "always"


def _reference(
    recipe: Recipe, network: Any, single: Frozen
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns TensorFlow's result of a test picture in float32, the picture, and its deviation."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    # Where the size may be any, an odd one: engines have been wrong at those only.
    size = [each + (3 if recipe.border == "zeros" else 0) for each in _size(network)]
    slopes = np.add.outer(np.linspace(0, 0.5, size[-2]), np.linspace(0.2, 0.4, size[-1]))[..., None]
    picture = np.clip(slopes + random.normal(0, 0.05, (*size, network.channels)), 0, 1)
    picture = picture.astype(np.float32)
    rows = picture.reshape(size[0], -1, network.channels)
    mean, deviation = recipe.build_normalization().statistics(rows)
    x = np.empty((1, *picture.shape), np.float32)
    Units(mean, deviation, 1.0).normalise(picture, x[0])
    with tf.device("CPU:0"):
        expected = np.asarray(single()(tf.constant(x))[0])
    return expected, x, deviation


def _size(network: Any) -> tuple[int, ...]:
    """Returns the size of the test picture, or of the test volume."""
    if network.dimensions == 3:
        return _VOLUME
    multiple = network.size_multiple
    side = -(-_SIDE // multiple) * multiple + 2 * network.halo
    return side, side


def _timed(run: Run, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a result, and the seconds that it takes once everything is prepared."""
    result, seconds = np.asarray(run(x)), math.inf
    for _ in range(2):
        start = time.perf_counter()
        result = np.asarray(run(x))
        seconds = min(seconds, time.perf_counter() - start)
        if seconds > _LONG:
            break
    return result, seconds


def _per_megapixel(seconds: float, network: Any, engine: Engine) -> float:
    """Returns seconds per megapixel of a picture, for seconds per pixel that is computed."""
    side = auto_side(network, engine)
    return seconds * ((side + 2 * network.halo) / side) ** 2 * 1e6


def _machine() -> str:
    """Returns what a measurement holds for: processor, cores and versions."""
    versions = [f"cbsn {cbsn.__version__}"]
    for name in ("tensorflow", "openvino", "onnxruntime"):
        with_version = _version(name)
        if with_version:
            versions.append(f"{name} {with_version}")
    return f"{processor()}, {available_cores()} cores; {', '.join(versions)}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _key(precision: str, recipe: Recipe, network: Any) -> str:
    """Returns the name of a measurement: one for all models whose networks are alike."""
    config = {k: v for k, v in network.get_config().items() if k not in ("name", "dtype")}
    about = [recipe.network, config, recipe.border, precision, network.dtype_policy.name]
    return f"{json.dumps(about, sort_keys=True, default=str)}; {_machine()}"
