"""The noise of stacks: of each channel by itself, and between frames and slices."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.pairs import spread
from cbsn.data.stack_pairs import Plane, StackFiles, StackPairs
from cbsn.data.stack_repair import StackRepair
from cbsn.errors import CbsnError, DataError, ImageError
from cbsn.evaluation.denoised_planes import DenoisedPlanes
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose
from cbsn.images.finding import are_single
from cbsn.images.stacks.opening import with_path
from cbsn.images.stacks.scaling import Scale, Scaling, measure_scaling
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.inference.volumes import check_z
from cbsn.noise.advice import Advice, advise
from cbsn.noise.bands import Bands
from cbsn.noise.defects import Defects
from cbsn.noise.estimate import NoiseEstimate, estimate_noise_of_residuals
from cbsn.noise.lines import LineNoise
from cbsn.noise.series import SeriesCorrelation, distances, mask_step, series_correlation
from cbsn.noise.structure import mask_for, measure_structure
from cbsn.progress import say

_PLANES = 64  # of a channel that are looked at, evenly spread
_PLACES = {"T": "frames", "Z": "slices"}


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelNoise:
    """The noise of a channel of a stack.

    Args:
        name: of the stack and the channel.
        scale: the values that count as 0 and 1: the stack's range.
        planes: how many planes were looked at.
        estimate: in levels of 255 of that range; None if there are too few flat parts.
        reason: why there is none, or empty.
        series: by axis, T or Z, the correlation between neighbours, where it can be measured.
        defects: the pixels that are hot or dead in all planes; None where nobody looked.
        lines_found: the noise that whole rows or columns share, if there is some.
        bands: regular patterns of rows or columns, if there are some.
        diagnosis: of a denoiser, if one was given.
    """

    name: str
    scale: Scale
    planes: int
    estimate: NoiseEstimate | None
    reason: str
    series: dict[str, SeriesCorrelation]
    defects: Defects | None = None
    lines_found: tuple[LineNoise, ...] = ()
    bands: tuple[Bands, ...] = ()
    diagnosis: Diagnosis | None = None

    @property
    def advice(self) -> Advice | None:
        """How to train; None without an estimate."""
        if self.estimate is None:
            return None
        return advise(self.estimate, self.lines_found, outliers=bool(self.defects))

    def in_file_units(self) -> dict[str, Any] | None:
        """Returns the strength of the noise in the file's own units; None without an estimate.

        `level` and `spread` are standard deviations, `points` by channel (of colours) pairs of a
        value and the standard deviation there. The line is variance = `slope` · value + `floor`;
        both are None where it is not known.
        """
        if self.estimate is None:
            return None
        step, low = (self.scale.high - self.scale.low) / 255, self.scale.low
        slope = self.estimate.slope * step
        numbers = {
            "level": self.estimate.level * step,
            "spread": self.estimate.spread * step,
            "slope": slope,
            "floor": self.estimate.floor * step**2 - slope * low,
        }
        points = [each * step + [low, 0] for each in self.estimate.points]
        found = {name: _significant(each) for name, each in numbers.items()}
        for name in ("slope", "floor"):
            known = zip(found[name], self.estimate.has_slope, strict=True)
            found[name] = [value if is_known else None for value, is_known in known]
        return {**found, "points": [_significant(each) for each in points]}

    def lines(self) -> list[str]:
        """Returns the report as lines of plain text."""
        low, high = self.scale.low, self.scale.high
        lines = [f"{self.name}: values from {low:g} to {high:g} count as 0 to 255", ""]
        found = self.in_file_units()
        if self.estimate and found:
            lines += self.estimate.lines("plane")
            lines += ["", "In the file's own units:"]
            for number, name in enumerate(self.estimate.channels):
                what = "" if name == "gray" else f"{name}: "
                points = found["points"][number]
                some = sorted({round(n * (len(points) - 1) / 3) for n in range(4)})
                told = ", ".join(f"{points[n][1]:.4g} at {points[n][0]:.4g}" for n in some)
                slope, floor = found["slope"][number], found["floor"][number]
                line = f"- {what}σ {found['level'][number]:.4g} in a typical plane ({told})"
                if slope is not None:
                    line += f"; variance = {slope:.4g} · value {'+−'[floor < 0]} {abs(floor):.4g}"
                lines.append(line)
        else:
            lines.append(self.reason)
        for axis, each in self.series.items():
            lines += ["", *each.lines(_PLACES[axis])]
        if self.advice:
            lines += ["", *self.advice.lines()]
        elif self.lines_found:
            mask = mask_for(None, self.lines_found)
            lines += ["", *(f"- {reason}" for reason in mask.reasons)]
        lines += [f"- {each.describe()}" for each in self.bands]
        if self.defects:
            planes = (
                "the plane" if self.defects.planes == 1 else f"all of {self.defects.planes} planes"
            )
            lines.append(
                f"- {self.defects.describe()} in {planes}: cbsn denoise --repair pixels, and the "
                "same for cbsn train."
            )
        if self.diagnosis:
            lines += ["", "The denoised planes:", *self.diagnosis.lines()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers as plain values for JSON."""
        return {
            "name": self.name,
            "scale": {"low": self.scale.low, "high": self.scale.high},
            "planes": self.planes,
            "noise": self.estimate.to_dict() if self.estimate else None,
            "reason": self.reason,
            "in_file_units": self.in_file_units(),
            "series": {axis: each.to_dict() for axis, each in self.series.items()},
            "lines": [each.to_dict() for each in self.lines_found],
            "bands": [each.to_dict() for each in self.bands],
            "defects": self.defects.to_dict() if self.defects is not None else None,
            "advice": vars(self.advice) if self.advice else None,
            "diagnosis": self.diagnosis.to_dict() if self.diagnosis else None,
        }


def _significant(values: np.ndarray) -> list:
    return np.vectorize(lambda value: float(f"{value:.5g}"), otypes=[float])(values).tolist()


def stack_noise(
    paths: Iterable[Path],
    options: StackOptions,
    *,
    images: int = 0,
    model_path: str | None = None,
    denoised: str | None = None,
    denoise_options: DenoiseOptions | None = None,
) -> Iterator[ChannelNoise]:
    """Measures the noise of stacks, of each channel by itself.

    Args:
        paths: the files.
        options: how they are read; `normalize` is for the model.
        images: int ≥ 0, the most planes of a channel to look at, at most 64; 0 for 64.
        model_path: a model; what it removes is taken for noise.
        denoised: the same for a folder or glob of denoised stacks of the same names.
        denoise_options: how the model denoises. Default `DenoiseOptions()`.

    Raises:
        ConfigError: if the options do not fit a file.
        DataError: if there is no denoised stack for one.
        ImageError: if a file is damaged, or has values that are not finite.

    Example:
        >>> for each in stack_noise([Path("cells.tif")], StackOptions()):
        ...     print(each.name, each.in_file_units()["level"])
    """
    model = None
    if model_path:
        from cbsn.inference.denoiser import Denoiser  # with TensorFlow, needed only here

        model = Denoiser.load(model_path, denoise_options or DenoiseOptions())
        say(f"{model.recipe.name} ({model_path}): {model.choices}")
    for path in paths:
        pairs = StackPairs(path, None, axes=options.axes, select=options.select, nan=options.nan)
        others = None
        with contextlib.ExitStack() as files:
            files.callback(pairs.close)
            if denoised:
                others = StackFiles(denoised, axes=pairs.axes, fills=pairs.fills)
                if pairs.noisy and are_single(path, denoised):
                    others.name_as(*pairs.noisy.paths)
                files.callback(others.close)
                if missing := {key[0] for key in pairs.keys} - others.paths.keys():
                    raise DataError(
                        f"Every stack needs a denoised one of the same name. --denoised {denoised} "
                        f"has none for {missing.pop()}."
                    )
                pairs.check_others(others)
            ordered = sorted(pairs.planes, key=lambda plane: (plane.key, plane.channel))
            for key, planes in itertools.groupby(ordered, lambda plane: plane.key):
                scalings = _scalings(pairs, key, model, options)
                denoise = None
                if model and scalings[1]:
                    assert pairs.noisy
                    scaling = {key: scalings[1]}
                    denoise = DenoisedPlanes(model, pairs.noisy, options, scaling, "float32")
                for _, same in itertools.groupby(planes, lambda plane: plane.channel):
                    yield _Channel(pairs, [*same], scalings[0], images).measure(denoise, others)


def _scalings(
    pairs: StackPairs, key: tuple[str, int], model: Any, options: StackOptions
) -> tuple[Scaling, Scaling | None]:
    """Returns how a stack is scaled to measure it, and for the model, if there is one."""
    assert pairs.noisy
    stack, path = pairs.noisy.stack(key), pairs.noisy.paths[key[0]]
    try:
        if model and model.of_volumes:
            check_z(stack.layout)
        own = measure_scaling(stack, "range", ignore_nan=options.nan == "fill")
        return own, choose_scaling(stack, [model], options, path) if model else None
    except ImageError as error:
        raise with_path(error, path) from None


class _Channel:
    """A channel of a stack, and how its planes are read."""

    def __init__(
        self,
        pairs: StackPairs,
        planes: Sequence[Plane],
        scaling: Scaling,
        images: int,
    ):
        assert pairs.noisy
        files = pairs.noisy
        self._pairs, self._planes = pairs, planes
        self._chosen = spread(planes, min(images or _PLANES, _PLANES))
        key, number = planes[0].key, planes[0].channel
        self._scale = scaling.of(number)
        self._repair = StackRepair(files.stack(key), None, fills=files.fills)
        layout = files.stack(key).layout
        image = f", image {key[1]}" if len(files.stacks(key[0])) > 1 else ""
        channel = ""
        if layout.size("C") > 1:
            channel = f", channel {number}"
            if layout.channels and (name := layout.channels[number].name):
                channel += f" ({name})"
        self._name = f"{files.paths[key[0]].name}{image}{channel}"

    def measure(
        self,
        denoise: Callable[[Plane], np.ndarray] | None,
        others: StackFiles | None,
    ) -> ChannelNoise:
        """Returns the noise; what a model or other stacks have removed is noise, if given."""
        diagnoses: list[Diagnosis] = []
        estimate, reason, defects = None, "", None
        lines: tuple[LineNoise, ...] = ()
        bands: tuple[Bands, ...] = ()
        try:
            if denoise or others:
                estimate = estimate_noise_of_residuals(self._removed(denoise, others, diagnoses))
            else:
                found = measure_structure(lambda: map(self._read, self._chosen))
                estimate, reason, bands = found.estimate, found.reason, tuple(found.bands)
                lines = found.found_lines
                defects = self._repair.measure(self._planes[0].channel)
        except DataError as error:
            reason = str(error)
        step = mask_step(estimate.correlation[:2].mean(axis=0)) if estimate else 1
        series = {axis: self._along(axis, step) for axis in _PLACES}
        return ChannelNoise(
            self._name,
            self._scale,
            len(self._chosen),
            estimate,
            reason,
            {axis: each for axis, each in series.items() if each},
            defects,
            lines,
            bands,
            Diagnosis.mean_of(diagnoses) if diagnoses else None,
        )

    def _read(self, plane: Plane) -> np.ndarray:
        return self._scale.apply(self._pairs.read(plane))

    def _removed(
        self,
        denoise: Callable[[Plane], np.ndarray] | None,
        others: StackFiles | None,
        diagnoses: list[Diagnosis],
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each plane and its denoised version, scaled; then diagnoses them."""
        for plane in self._chosen:
            values = self._pairs.read(plane)
            try:
                if others:
                    clean = self._pairs.read_other(others, plane)
                else:
                    assert denoise
                    clean = denoise(plane)
            except CbsnError as error:
                raise type(error)(f"{plane.name}: {error}") from error
            pair = self._scale.apply(values), self._scale.apply(clean)
            yield pair
            if min(values.shape[:2]) >= SMALLEST:
                diagnoses.append(diagnose(*pair))

    def _along(self, axis: str, step: int) -> SeriesCorrelation | None:
        """Returns the correlation between neighbours along an axis, if there are any."""
        places = {tuple(sorted(plane.position.items())): plane for plane in self._planes}
        positions = {plane.position[axis] for plane in self._planes if axis in plane.position}
        if len(positions) < 2:
            return None
        lags, far = distances(len(positions))
        offsets = [0, *lags, *([far] if far else [])]
        last = max(positions) - offsets[-1]
        starts = [plane for plane in self._planes if plane.position[axis] <= last]

        def groups() -> Iterator[list[np.ndarray]]:
            for start in spread(starts, max(1, _PLANES // len(offsets))):
                place = dict(start.position)
                yield [
                    self._read(places[tuple(sorted({**place, axis: place[axis] + n}.items()))])
                    for n in offsets
                ]

        return series_correlation(groups(), far, step)
