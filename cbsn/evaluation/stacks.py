"""How denoised stacks are compared with clean ones, plane by plane, in the files' own values."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from cbsn.data.pairs import spread
from cbsn.data.stack_pairs import Plane, StackFiles, StackPairs
from cbsn.errors import ConfigError, DataError, ImageError, in_one_line
from cbsn.evaluation.comparison import Comparison, Pair, figure
from cbsn.evaluation.conventions import Conventions
from cbsn.evaluation.denoised_planes import DenoisedPlanes
from cbsn.evaluation.methods import Denoise, Method, load_model_method
from cbsn.evaluation.report.pictures import ReportPicture
from cbsn.images.finding import are_single
from cbsn.images.stacks.opening import with_path
from cbsn.images.stacks.scaling import Scale, Scaling, measure_scaling
from cbsn.images.stacks.stack import Stack
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.pixels import cast
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.inference.volumes import check_z

METRICS = "psnr,ssim,si_psnr"
"""The default of `--metrics` for stacks. MicroSSIM takes a second for each megapixel."""

_DIAGNOSED = 64  # planes, evenly spread
_TOLD = 4  # data ranges that are said


class StackComparison(Comparison):
    """The comparison of stacks; see `cbsn.evaluation.comparison.Comparison`.

    Results are compared in the files' own values. Models see each plane as in `cbsn denoise`.
    Classic denoisers and the diagnosis see it with the noisy stack's range as 0 and 1.

    Args:
        pairs: the planes.
        conventions: how they are compared, see `Conventions.for_stacks`.
        metrics: some of `cbsn.evaluation.scores.METRICS`.
        options: how the stacks are read and scaled.

    Raises:
        ImageError: if a file is damaged, or has values that are not finite.
    """

    def __init__(
        self,
        pairs: StackPairs,
        conventions: Conventions,
        metrics: Collection[str],
        options: StackOptions,
    ):
        super().__init__(pairs, conventions, metrics)
        self._options = options
        self._diagnosed = {*spread(pairs.names, _DIAGNOSED)}
        # By the key of the stack, all of them measured before any time is spent on denoising.
        self._ranges: dict[tuple[str, int], list[float]] = {}
        if pairs.clean and conventions.data_range == "stack" and {"psnr", "ssim"} & {*metrics}:
            self._ranges = {key: _ranges(pairs.clean, key) for key in pairs.keys}
        self._scales = {key: self._scaling(pairs.noisy, key) for key in pairs.keys if pairs.noisy}
        self._displays: dict[tuple[str, int], tuple[Scaling, Scaling]] = {}
        self._others: list[StackFiles] = []

    def _scaling(self, side: StackFiles, key: tuple[str, int], method: str = "range") -> Scaling:
        try:
            return measure_scaling(side.stack(key), method, ignore_nan=side.fills)
        except ImageError as error:
            raise with_path(error, side.paths[key[0]]) from None

    def _scale(self, plane: Plane) -> Scale:
        return self._scales[plane.key].of(plane.channel)

    def measure(  # noqa: D102
        self, name: str, clean: np.ndarray, denoised: np.ndarray
    ) -> dict[str, Any]:
        plane, cut = self._pairs.plane(name), self.conventions.cut
        wanted, got = (cut(each.astype(np.float64)) for each in (clean, denoised))
        if not wanted.size:
            border = self.conventions.border
            raise ConfigError(
                f"{name}: --border {border} leaves nothing of {clean.shape[:2]} px: use a smaller "
                f"one. Received: --border {border}"
            )
        try:
            return {"lpips": None} | {
                each: figure(
                    each, wanted, got, self.conventions.ssim, lambda c: self._peak(plane, c)
                )
                for each in self._metrics
            }
        except ValueError as error:
            raise DataError(f"{name}: {error}. Omit it, or this metric.") from error

    def _peak(self, plane: Plane, clean: np.ndarray) -> float | None:
        """Returns the data range; None for a flat channel or plane, which has none."""
        kind = self.conventions.data_range
        if kind == "stack":
            return self._ranges[plane.key][plane.channel] or None
        return (float(np.ptp(clean)) or None) if kind == "clean" else float(kind)

    def diagnosed(  # noqa: D102
        self, name: str, noisy: np.ndarray, denoised: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if name not in self._diagnosed:
            return None
        scale = self._scale(self._pairs.plane(name))
        return scale.apply(noisy), scale.apply(denoised)

    def _in_file(self, values: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        """Returns denoised values as they are in a file of the noisy stack's dtype, if rounded."""
        return cast(values, self._dtype(noisy), "round")

    def _dtype(self, noisy: np.ndarray) -> np.dtype:
        is_rounded = self.conventions.rounding == "round"
        return noisy.dtype if is_rounded else np.dtype(np.float32)

    def baseline(self, method: Method) -> Method:  # noqa: D102
        if not method.computes:
            return method

        def denoise(name: str, noisy: np.ndarray, clean: np.ndarray | None) -> np.ndarray:
            scale = self._scale(self._pairs.plane(name))
            wanted = None if clean is None else scale.apply(clean)
            return self._in_file(
                scale.undo(method.denoise(name, scale.apply(noisy), wanted)), noisy
            )

        return dataclasses.replace(method, denoise=denoise)

    def denoised(self, folder: str) -> Method:  # noqa: D102
        pairs = self._pairs
        files = StackFiles(folder, axes=pairs.axes, fills=pairs.fills)
        stacks = {key[0] for key in pairs.keys}
        if len(stacks) == 1 and are_single(folder):
            files.name_as(*stacks)
        if missing := sorted(stacks - files.paths.keys()):
            raise DataError(
                f"{folder} has no denoised stack for {len(missing)} of {len(stacks)} names, such "
                f"as {missing[0]}. Denoise them with cbsn denoise --out {folder}, or score fewer."
            )
        self._others.append(files)
        pairs.check_others(files)

        def read(name: str, noisy: np.ndarray | None, clean: np.ndarray | None) -> np.ndarray:
            return pairs.read_other(files, pairs.plane(name))

        return Method(f"denoised ({in_one_line(folder)})", read, computes=False)

    def model(self, path: str, options: DenoiseOptions) -> Method:  # noqa: D102
        return load_model_method(path, options, self._use)

    def _use(self, model: Denoiser) -> Denoise:
        """Returns what denoises a plane as `cbsn denoise` does."""
        files, scalings = self._pairs.noisy, {}
        assert files is not None
        for key in self._pairs.keys:
            try:
                scalings[key] = choose_scaling(
                    files.stack(key), [model], self._options, files.paths[key[0]]
                )
                if model.of_volumes:
                    check_z(files.stack(key).layout)
            except ImageError as error:
                raise with_path(error, files.paths[key[0]]) from None
        dtype = "same" if self.conventions.rounding == "round" else "float32"
        denoise = DenoisedPlanes(model, files, self._options, scalings, dtype)
        return lambda name, noisy, clean: denoise(self._pairs.plane(name))

    def facts(self) -> list[str]:  # noqa: D102
        facts = super().facts()
        if self._ranges:
            told = [
                f"{_name(key)} {' and '.join(f'{each:g}' for each in ranges)}"
                for key, ranges in self._ranges.items()
            ]
            more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
            facts.append(
                "Data range, the highest less the lowest value of each channel of the clean stack: "
                f"{', '.join(told[:_TOLD])}{more}."
            )
        return facts

    def record(self) -> dict[str, Any]:  # noqa: D102
        fields = ("axes", "select", "normalize", "nan")
        ranges = {_name(key): each for key, each in self._ranges.items()}
        settings = {field: getattr(self._options, field) for field in fields}
        return {"stacks": {**settings, "data_ranges": ranges}}

    def report_picture(
        self,
        name: str,
        pair: Pair,
        denoised: Mapping[str, np.ndarray],
        captions: Mapping[str, str],
    ) -> ReportPicture:
        """Returns what a report shows, from black to white as the clean stack's percentiles are.

        Noisy stacks in another unit, whose mean lies beyond the clean values, have their own.
        """
        noisy, clean = pair
        assert noisy is not None
        plane = self._pairs.plane(name)
        if plane.key not in self._displays:
            assert self._pairs.noisy
            mine = self._scaling(self._pairs.noisy, plane.key, "percentile")
            wanted = mine
            if self._pairs.clean:
                wanted = self._scaling(self._pairs.clean, plane.key, "percentile")
            self._displays[plane.key] = mine, wanted
        own, scale = (each.of(plane.channel) for each in self._displays[plane.key])
        span = scale.high - scale.low
        used = scale if abs(own.mean - scale.mean) <= span else own
        return ReportPicture(
            name,
            used.apply(noisy),
            {method: used.apply(each) for method, each in denoised.items()},
            None if clean is None else scale.apply(clean),
            captions,
        )

    def close(self) -> None:  # noqa: D102
        self._pairs.close()
        for files in self._others:
            files.close()


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]} image{key[1]}" if key[1] else key[0]


def _ranges(side: StackFiles, key: tuple[str, int]) -> list[float]:
    """Returns the highest less the lowest value of each channel of a stack."""
    stack: Stack = side.stack(key)
    layout = stack.layout
    lows, highs = [np.inf] * layout.size("C"), [-np.inf] * layout.size("C")
    for index in layout.indices():
        channel = layout.channel(index)
        position = dict(zip(layout.outer, index, strict=True))
        plane = side.read(stack, key[0], position)
        lows[channel] = min(lows[channel], float(plane.min()))
        highs[channel] = max(highs[channel], float(plane.max()))
    return [high - low for low, high in zip(lows, highs, strict=True)]
