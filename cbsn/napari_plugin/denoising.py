"""Denoising the planes of a layer, and how strongly a result is shown.

Nothing of Qt is here, and only `load_denoiser` imports TensorFlow; see `processes` for the reason.
"""

import functools
import logging
import math
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cbsn.errors import CbsnError, CbsnWarning, ImageError, in_one_line, plain_reason
from cbsn.images.stacks.scaling import METHODS, Scale, Scaling, measure_scaling
from cbsn.inference.options import DenoiseOptions, Strength
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.inference.volumes import slabs
from cbsn.napari_plugin.layers import LayerPlanes
from cbsn.napari_plugin.lazy_array import lazy_array

if TYPE_CHECKING:  # it loads TensorFlow
    from cbsn.inference.denoiser import Denoiser

_AT_ONCE = 2**20  # pixels of the planes that are denoised together, if they are small
_VOXELS = 2**26  # of a part of a volume, with what the network sees around it

Report = Callable[[float], None]
"""Gets the share that is done. It may raise an error, which ends the work."""


Denoise = Callable[[np.ndarray, Scale, Report], np.ndarray]
"""Denoises planes as `Denoiser.scaled` does."""


class ModelFacts(NamedTuple):
    """What the plugin has to know of a model.

    Args:
        scaling: how the stacks were scaled that it was trained on; None if it was on pictures.
        z_halo, z_grid: of its network, if it denoises volumes; else None.
    """

    scaling: Scaling | None = None
    z_halo: int | None = None
    z_grid: int | None = None


_OF_PLANES = ModelFacts()


def facts_of(denoiser: "Denoiser") -> ModelFacts:
    """Returns the facts of a model that is loaded."""
    if not denoiser.of_volumes:
        return ModelFacts(denoiser.scaling)
    return ModelFacts(denoiser.scaling, denoiser.network.z_halo, denoiser.network.z_grid)


class Cancelled(Exception):  # noqa: N818, as it is no error
    """Raised by a `Report` to end the work."""


def load_denoiser(model: str, tile: int) -> "Denoiser":
    """Loads a model, unless it was the last one that was loaded. Not in napari's own process.

    Args:
        model: a shipped name, or the path of a run or a saved model.
        tile: side of the tiles in pixels; 0 for what fits into memory.

    Raises:
        ModelError: if there is no such model, or it cannot be read.
    """
    stamps = []
    for folder in (Path(model), *(Path(model) / name for name in ("best", "last"))):
        try:
            stamps.append((folder / "recipe.json").stat().st_mtime_ns)
        except OSError:
            stamps.append(0)
    return _load(model, tile, tuple(stamps))


@functools.lru_cache(maxsize=1)
def _load(model: str, tile: int, stamps: tuple[int, ...]) -> "Denoiser":
    from cbsn.importing import import_tensorflow

    import_tensorflow()
    from cbsn.inference.denoiser import Denoiser

    return Denoiser.load(model, DenoiseOptions(tile=tile or "auto"))


def measure_scale(planes: LayerPlanes, trained: Scaling | None, *, own: bool = False) -> Scale:
    """Returns how the layer's values become those that the network sees.

    They are taken from the whole layer, so a single plane is denoised as it is among all.

    Args:
        planes: the layer's.
        trained: the scaling of the model; None if it was trained on pictures.
        own: whether to scale a layer by its own values, also if the model has a scaling.
    """
    if trained and (own or len(trained.channels) > 1):  # which channel it is, nobody knows
        method = trained.method if trained.method in METHODS else "range"
        return measure_scaling(planes.stack, method, ignore_nan=planes.fill).of(0)
    options = StackOptions(nan="fill" if planes.fill else "refuse")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", CbsnWarning)
        model: Any = SimpleNamespace(scaling=trained)
        scale = choose_scaling(planes.stack, [model], options, Path("The layer")).of(0)
    if any(issubclass(each.category, CbsnWarning) for each in found):
        text = (
            "The layer's values are unlike those that the model was trained on. If the result "
            "looks wrong, tick “Scale by this layer” under “Advanced”."
        )
        warnings.warn(text, CbsnWarning, stacklevel=2)
    return scale


def denoise_planes(
    planes: LayerPlanes,
    numbers: Sequence[int],
    denoise: Denoise,
    scale: Scale,
    report: Report = lambda share: None,
    facts: ModelFacts = _OF_PLANES,
) -> np.ndarray:
    """Denoises some planes of a layer, with the full strength.

    Args:
        planes: the layer's.
        numbers: those to denoise.
        denoise: what denoises planes, such as `DenoiseProcess.denoise`.
        scale: from `measure_scale`.
        report: see `Report`; called after each tile.
        facts: of the model. Default: it denoises planes one by one.

    Returns:
        The result, [N, H, W] or [N, H, W, S].

    Raises:
        ImageError: if values are not finite, or a file is damaged; or if the model denoises
            volumes, and the layer has none.
        MemoryError: if memory does not suffice.
    """
    result = np.empty((len(numbers), *planes.shape), planes.dtype)
    place = {number: each for each, number in enumerate(numbers)}
    finished, done = 0, 0.0
    for some, seen in _groups(planes, numbers, facts):
        noisy = np.stack([planes.read(number) for number in seen])

        part = len(some) / len(numbers)
        finished += len(some)
        most = finished / len(numbers)

        def on_tile(share: float, part: float = part, most: float = most) -> None:
            nonlocal done
            done = min(done + share * part, most)
            report(done)

        denoised = dict(zip(seen, denoise(noisy, scale, on_tile), strict=True))
        for number in some:
            result[place[number]] = denoised[number]
        done = most
        report(done)
    return result


def _groups(
    planes: LayerPlanes, numbers: Sequence[int], facts: ModelFacts
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yields planes to denoise together, and those that the network sees for that."""
    pixels = math.prod(planes.shape[:2])
    if facts.z_halo is None or facts.z_grid is None:
        together = max(1, _AT_ONCE // pixels)
        for start in range(0, len(numbers), together):
            yield (some := numbers[start : start + together]), some
        return
    if planes.z_axis is None:
        raise ImageError(
            "This model denoises volumes, and no axis of this layer is z. If its planes lie along "
            "z, name the axis so (layer.axis_labels); or else choose another model."
        )
    halo, grid = facts.z_halo, facts.z_grid
    depth = planes.outer_shape[planes.z_axis]
    # No fewer than are seen around, or else most of the work would be for these.
    together = max(halo, _VOXELS // pixels - 2 * halo)
    together = -(-together // grid) * grid
    volumes = np.moveaxis(
        np.arange(planes.count).reshape(planes.outer_shape), planes.z_axis, -1
    ).reshape(-1, depth)
    wanted = {*numbers}
    for volume in volumes.tolist():
        for slab in slabs(depth, together, halo):
            mine = [z for z in slab.filled if volume[z] in wanted]
            if mine:  # in the whole slab, or in one plane of it
                first = max(0, mine[0] // grid * grid - halo)
                yield [volume[z] for z in mine], volume[first : mine[-1] + 1 + halo]


class Result:
    """A denoised layer that can be shown with any strength, without a new run of the network.

    The noisy planes stay where they are, and the fully denoised ones are kept. A network's change
    is taken in part by blending the two. In between, planes are blended when they are shown, so
    no other copy is in memory. Where integers are denoised, the full result is rounded already,
    and a blend may differ by 1 from one that is rounded once.

    Args:
        planes: the noisy ones.
        numbers: which of them are denoised.
        denoised: the result of `denoise_planes`.
        outer_shape: the sizes of the result's axes that number its planes.
    """

    def __init__(
        self,
        planes: LayerPlanes,
        numbers: Sequence[int],
        denoised: np.ndarray,
        outer_shape: tuple[int, ...],
    ):
        self.strength = 1.0
        self._planes, self._numbers, self._denoised = planes, numbers, denoised
        self._outer_shape = outer_shape

    def at(self, strength: float) -> Any:
        """Returns the result with a strength from 0 to 1; an array, or else a dask array."""
        self.strength = strength
        if strength == 1:
            return self._denoised.reshape(*self._outer_shape, *self._planes.shape)

        def read(index: tuple[int, ...]) -> np.ndarray:
            place = int(np.ravel_multi_index(index, self._outer_shape)) if index else 0
            noisy = self._planes.read(self._numbers[place])
            return blended(noisy, self._denoised[place], strength)

        return lazy_array(read, self._outer_shape, self._planes.shape, self._planes.dtype)


results: "weakref.WeakKeyDictionary[Any, Result]" = weakref.WeakKeyDictionary()
"""By layer, of all layers with results: what shows them with another strength."""


def blended(noisy: np.ndarray, denoised: np.ndarray, strength: float) -> np.ndarray:
    """Returns noisy planes with a share of what a network would change, in their dtype."""
    # In the layer's own values, as their scaling is linear. float64 holds integers of 32 bits.
    values = Strength(strength).blend(noisy.astype(np.float64), denoised.astype(np.float64))
    if noisy.dtype.kind in "iu":
        limits = np.iinfo(noisy.dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    return values.astype(noisy.dtype)


def explain(error: Exception) -> str:
    """Returns what went wrong, in one plain sentence; the log has where, at the level DEBUG."""
    logging.getLogger("cbsn.napari").debug("This has failed:", exc_info=error)
    text = plain_reason(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return (
            "Memory ran out. Denoise the current plane only, or choose smaller tiles under "
            "“Advanced”."
        )
    if isinstance(error, CbsnError):
        return in_one_line(text)
    return in_one_line(f"This did not work ({type(error).__name__}: {text}).")


def check_memory(planes: LayerPlanes, count: int) -> None:
    """Raises an ImageError if a result of this many planes does not fit into memory."""
    import psutil  # napari needs it, too

    needed = count * math.prod(planes.shape) * planes.dtype.itemsize
    free = psutil.virtual_memory().available
    if needed > 0.9 * free:
        raise ImageError(
            f"The result would take {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB "
            "are free. Denoise the current plane only, or the file with the command cbsn denoise."
        )


@contextmanager
def own_warnings() -> Iterator[None]:
    """Lets only this package's warnings through, which napari shows; not those of libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CbsnWarning)
        yield
