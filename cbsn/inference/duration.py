"""How long pictures will take, said before they are denoised."""

import copy
import dataclasses
import math
import timeit
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbsn.images.image_files import read_header
from cbsn.orientations import NUM_ORIENTATIONS

if TYPE_CHECKING:  # as in `cbsn.inference.folder`
    from cbsn.inference.denoiser import Denoiser

_LEAST_PIXELS = 1_000_000
"""Of all pictures: fewer are not worth measuring, as the models that ship need no minute for them,
even on a slow machine."""

_SIDE, _LARGEST_SIDE = 256, 1024
"""Of the picture that the speed is measured on, at first and at most, in pixels."""

_LONG_ENOUGH = 0.2
"""Seconds that a measurement should take at least: a GPU needs a larger picture for that."""


def say_duration(
    denoiser: "Denoiser", sources: Iterable[Path], fast_share: float | None = None
) -> None:
    """Prints how long pictures will take, if that is more than a minute.

    Args:
        denoiser: what will denoise them.
        sources: the picture files, of which the headers are read.
        fast_share: as for `denoise_files`. Default None.

    Example:
        >>> say_duration(denoiser, sources, 0.3)
        About 14 minutes for 31 pictures of 372 megapixels; --quality fast takes about 4 minutes.
    """
    headers = [read_header(source) for source in sources]
    pixels = sum(header.width * header.height for header in headers)
    orientations = NUM_ORIENTATIONS if denoiser.options.self_ensemble else 1
    if pixels * orientations < _LEAST_PIXELS:
        return
    computed = sum(_reach(denoiser, each.width) * _reach(denoiser, each.height) for each in headers)
    seconds = _seconds_per_pixel(denoiser) * orientations * computed
    if seconds < 60:
        return
    text = f"About {_words(seconds)} for {len(headers)} picture{'s' * (len(headers) > 1)} of "
    text += f"{pixels / 1e6:.0f} megapixel{'s' * (round(pixels / 1e6) > 1)}"
    if fast_share is not None:
        fast = fast_share * seconds
        takes = "less than a minute" if fast < 60 else f"about {_words(fast)}"
        text += f"; --quality fast takes {takes}"
    print(f"{text}.", flush=True)


def _seconds_per_pixel(denoiser: "Denoiser") -> float:
    """Measures it here, without the rims of tiles and in one orientation."""
    # On a GPU a call of the size that is needed anyway; not pictures of sizes that nobody needs.
    if seconds := denoiser.seconds_per_pixel():
        return seconds
    once = copy.copy(denoiser)
    once.options = dataclasses.replace(denoiser.options, self_ensemble=False)
    side = _SIDE
    while True:
        random = np.random.default_rng(0)
        picture = random.integers(0, 256, (side, side, denoiser.network.channels), np.uint8)
        # The first time of all includes the making of a graph, which is needed anyway.
        seconds = min(timeit.repeat(partial(once, picture), number=1, repeat=2))
        if seconds >= _LONG_ENOUGH or side >= _LARGEST_SIDE:
            return seconds / (_reach(once, side) ** 2)
        side *= 2


def _reach(denoiser: "Denoiser", size: int) -> int:
    """How many rows are computed for a picture of `size` rows, with those that tiles share."""
    tiles = math.ceil(size / denoiser.side) if denoiser.side else 1
    ends = 0 if denoiser.recipe.border == "reflect" else 1
    return size + 2 * denoiser.network.receptive_field_radius * max(0, tiles - ends)


def _words(seconds: float) -> str:
    """A time in minutes or hours, as one says it."""
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minute{'s' * (minutes > 1)}"
    return f"{round(minutes / 60)} hours"
