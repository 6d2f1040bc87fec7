"""How much of the time of a training step, and of denoising a tile, the convolutions take.

The roofline is the time that the convolutions of a step take alone: with their true shapes and
dtypes, as raw TensorFlow operations on existing tensors, without bias and ReLU, one after the
other. No arrangement of the same convolutions can be much faster, so the *share* of this time in
the step's time says how much is left to gain around them. It may be slightly above 100 %: a step
may run two convolutions at a time (its branches do not depend on each other), which uses several
cores better than one small convolution can.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import inference
from benchmarks.convolutions import KINDS, Convolution, Replay, total_flop
from benchmarks.graph import find_convolutions
from benchmarks.harness import Sample, Side, alternate, paired_ratios, summarise, timed
from benchmarks.report import Column
from benchmarks.settings import Settings
from benchmarks.step import describe, specs, step_of
from cbsn.inference.denoiser import Denoiser

TITLE = "Roofline: the convolutions alone"
COLUMNS = (
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("share", "share", ".1%"),
    Column("gflop", "GFLOP"),
    Column("gflop_per_second", "GFLOP/s"),
)
PRECISIONS = ("float32", "bfloat16")
"""The sides of `step` and `inference` that are measured."""


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for case, steps in specs(settings):
        wholes = {}
        for precision in PRECISIONS:
            trainer, batch = steps[precision].trainer(), steps[precision].batch()
            traced = trainer.concrete_step(batch)
            wholes[precision] = (timed(step_of(trainer, batch)), find_convolutions(traced))
        yield _compare(f"step, {case}", "step", wholes, settings.repeats)
    for size in settings.sizes:
        wholes = {
            precision: _picture(inference.SIDES[precision].make(*size[1:]), settings.tile)
            for precision in PRECISIONS
        }
        case = f"inference, {describe(size)}, {settings.tile}x{settings.tile}"
        yield _compare(case, "inference", wholes, settings.repeats)


def _compare(
    case: str,
    whole: str,
    wholes: dict[str, tuple[Callable[[], Sample], Counter[Convolution]]],
    repeats: int,
) -> dict[str, Any]:
    """Measures steps or tiles and their convolutions in turns; adds the shares, also by kind."""
    sides = []
    for precision, (measure, convolutions) in wholes.items():
        sides.append(Side(f"{whole} {precision}", measure))
        sides.append(Side(f"convolutions {precision}", Replay(convolutions)))
    samples = alternate(sides, repeats)
    rows = []
    for precision, (_, convolutions) in wholes.items():
        base = f"{whole} {precision}"
        rows.append({"side": base, **summarise(samples[base])})
        together = samples[f"convolutions {precision}"]
        for kind in ("seconds", *KINDS):
            flop = total_flop(convolutions, None if kind == "seconds" else kind)
            if kind != "seconds" and flop in (0, total_flop(convolutions)):
                continue  # inference has only one kind
            gflop = flop / 1e9
            own = [{"seconds": s[kind], "gflop_per_second": gflop / s[kind]} for s in together]
            shares = paired_ratios(own, samples[base])
            rows.append(
                {
                    "side": f"convolutions {precision}" if kind == "seconds" else f"- {kind}",
                    **summarise(own),
                    "gflop": gflop,
                    "base": base,
                    "shares": shares,
                    "share": statistics.median(shares),
                }
            )
    return {"case": case, "sides": rows}


class _Listener:
    """A network that records the shapes of its inputs, even in a graph that takes any shape."""

    def __init__(self, network: Any):
        self._network = network
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.options: dict[str, Any] = {}

    def __call__(self, x: tf.Tensor, **options: Any) -> tf.Tensor:
        self.options = options
        tf.numpy_function(self._note, [tf.shape(x)], [])
        return self._network(x, **options)

    def _note(self, shape: np.ndarray) -> None:
        self.shapes[tuple(shape.tolist())] += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _picture(denoise: Denoiser, side: int) -> tuple[Callable[[], Sample], Counter[Convolution]]:
    """Returns the measurement of a picture `side` pixels wide and high, and its convolutions."""
    image = inference.picture(side, side)
    network = denoise.network
    listener = _Listener(network)
    Denoiser(denoise.recipe, listener)(image)
    traced = tf.function(lambda x: network(x, **listener.options))
    convolutions: Counter[Convolution] = Counter()
    for shape, calls in listener.shapes.items():
        found = find_convolutions(traced.get_concrete_function(tf.TensorSpec(shape)))
        convolutions.update({each: n * calls for each, n in found.items()})
    return timed(lambda: denoise(image)), convolutions
