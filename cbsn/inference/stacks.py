"""Denoising stacks, plane by plane, with memory that does not depend on their size."""

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, CbsnWarning, ConfigError, ImageError, in_one_line, plain_reason
from cbsn.images.stacks.opening import open_stacks, writer_of
from cbsn.images.stacks.scaling import (
    Scale,
    Scaling,
    count_missing,
    fill_missing,
    measure_scaling,
    parse_scaling,
)
from cbsn.images.stacks.stack import Layout, Stack, check_axes, parse_selection
from cbsn.images.stacks.writing import PartialStackFile, partial_stack_file
from cbsn.inference.forecast import counted
from cbsn.progress import progress_bar, say, say_fault

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser

DTYPES = ("same", "uint8", "uint16", "float32")
"""Values of `--dtype`."""

_BLOCK = 4096  # side of the parts of a large plane, in pixels, a multiple of `_GRID`
# Parts begin at multiples of this: of what networks halve and downsample, and of R3's period. So a
# part is computed as it is within the plane.
_GRID = 512
_AT_ONCE = 2**22  # pixels of the planes that are denoised together, if they are small
# How far the statistics of a file may be from those of the training before it says so.
_FAR, _RATIO = 3.0, 4.0


@dataclasses.dataclass(frozen=True)
class StackOptions:
    """How stacks are read, scaled and written; the fields are the flags of `cbsn denoise`.

    Args:
        axes: letters of T, Z, C, Y, X and S, in the file's order. Default: what the file says.
        select: the planes to denoise, such as `t=0:10,c=1`. Default: all.
        roi: the rows and columns to denoise, such as `100:600,200:700`. Default: all.
        normalize: what a network sees as 0 and 1, see `parse_scaling`. "auto": as the model was
            trained, or else by the file's values. Default "auto".
        nan: "refuse" files with values that are not finite, or "fill" them. Default "refuse".
        dtype: one of `DTYPES`, of the result. Default "same".

    Raises:
        ConfigError: if a value cannot be understood.
    """

    axes: str | None = None
    select: str | None = None
    roi: str | None = None
    normalize: str = "auto"
    nan: str = "refuse"
    dtype: str = "same"

    def __post_init__(self):
        parse_selection(self.select, self.roi)
        parse_scaling(self.normalize)
        if self.axes is not None:
            try:
                check_axes("".join(sorted(self.axes.upper(), key="TZCYXS".find)))
            except ImageError as error:
                raise ConfigError(f"--axes: {error}") from None
        for flag, known in ("nan", ("refuse", "fill")), ("dtype", DTYPES):
            if getattr(self, flag) not in known:
                raise ConfigError(
                    f"--{flag} must be {' or '.join(known)}. "
                    f"Received: --{flag} {getattr(self, flag)}"
                )

    @classmethod
    def pop(cls, flags: MutableMapping[str, Any]) -> "StackOptions":
        """Removes the options from a command's flags, which may lack some, and returns them."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: flags.pop(name) for name in names if name in flags})

    def given(self) -> list[str]:
        """Returns the flags that differ from their defaults."""
        fields = dataclasses.fields(self)
        return [f"--{f.name}" for f in fields if getattr(self, f.name) != f.default]


def denoise_stacks(
    denoisers: Sequence["Denoiser"],
    outputs: Mapping[Path, Path],
    options: StackOptions,
) -> int:
    """Denoises the stacks of files and folders. A broken one does not stop the others.

    Results appear when they are complete. After an interruption, the same call goes on where it
    was. Shows a progress bar of planes, and prints which files failed and why.

    Args:
        denoisers: one for all channels, or one for each channel.
        outputs: source to target, from `plan_files`.
        options: how to read, scale and write them.

    Returns:
        Exit status: 0, or 1 if a file failed.

    Example:
        >>> outputs = plan_files(["cells.tif"], "clean")
        >>> denoise_stacks([Denoiser.load("photo")], outputs, StackOptions())
    """
    for denoiser in denoisers:
        say(denoiser.choices)
    failures = []
    for source, target in outputs.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _denoise_file(denoisers, source, target, options)
        except (CbsnError, OSError, MemoryError) as error:
            name = "" if str(source) in str(error) else f"{source}: "
            failures.append(in_one_line(f"{name}{plain_reason(error)}"))
    done = len(outputs) - len(failures)
    say(in_one_line(f"{done} of {counted(len(outputs), 'stack')} denoised."))
    for failure in failures:
        say_fault(f"failed: {failure}")
    return 1 if failures else 0


def _denoise_file(
    denoisers: Sequence["Denoiser"], source: Path, target: Path, options: StackOptions
) -> None:
    with open_stacks(source, options.axes) as stacks:
        works = [StackWork(stack, denoisers, options, source) for stack in stacks]
        steps = [(number, step) for number, work in enumerate(works) for step in work.steps()]
        for work in works:
            say(in_one_line(f"{source.name}: {work.describe()}"))
        status = source.stat()
        settings = {
            "source": [str(source.absolute()), status.st_size, status.st_mtime_ns],
            "models": [denoiser.sha256() for denoiser in denoisers],
            "options": [dataclasses.asdict(denoisers[0].options), dataclasses.asdict(options)],
            "scaling": [work.scaling.to_dict() for work in works],
            "steps": len(steps),
        }
        layouts = [work.layout for work in works]
        with (
            partial_stack_file(target, writer_of(target), layouts, settings) as file,
            progress_bar(total=sum(each.planes for each in layouts), unit="plane") as bar,
        ):
            if file.done:
                say(f"{target.name}: going on where an earlier run was stopped.")
            try:
                _run(works, steps, file, bar)
            except KeyboardInterrupt:
                kept = f"{file.done / len(steps):.0%} of {source.name} is done"
                say_fault(f"{kept}; the same command goes on from there.")
                raise
        filled = sum(work.filled for work in works)
        if filled:
            say_fault(f"note: {source}: {filled} values that were not finite are filled.")


@contextlib.contextmanager
def open_scaled(
    path: Path, denoisers: Sequence["Denoiser"], options: StackOptions
) -> Iterator[list[tuple[Stack, Scaling]]]:
    """Opens what is selected of a file's stacks, with the scaling that `denoise_stacks` uses."""
    with open_stacks(path, options.axes) as stacks:
        scalings = [choose_scaling(stack, denoisers, options, path) for stack in stacks]
        selection = parse_selection(options.select, options.roi)
        yield [
            (stack.selected(selection), scaling)
            for stack, scaling in zip(stacks, scalings, strict=True)
        ]


def denoise_stack(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions
) -> np.ndarray:
    """Returns a stack, denoised, as an array with the stack's axes.

    For the arguments, see `denoise_stacks`.
    """
    work = StackWork(stack, denoisers, options, Path("The stack"))
    file = _Array(work.layout)
    with progress_bar(total=work.layout.planes, unit="plane") as bar:
        _run([work], [(0, step) for step in work.steps()], file, bar)
    return file.array


class _Array:
    """An array in the place of a `PartialStackFile`."""

    done = 0

    def __init__(self, layout: Layout):
        self.array = np.empty(layout.shape, layout.dtype)

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        plane: np.ndarray = self.array[tuple(index)]
        plane[rows, columns] = part

    def count(self, done: int) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Step:
    """What is denoised at a time: planes of one channel, or a part of a large plane."""

    indices: tuple[tuple[int, ...], ...]
    rows: slice
    columns: slice


class StackWork:
    """A stack, and how it is denoised: step by step, each of which may be taken by itself.

    Args:
        stack: the whole stack.
        denoisers: one for all channels, or one for each channel.
        options: how to read, scale and write it.
        source: the stack's file, for messages.
        scaling: how to scale it, if that is known already. Default None, see `choose_scaling`.

    Attributes:
        stack: what is selected of it.
        layout: that of the result.
        scaling: how its values are scaled.
        filled: int, how many values that were not finite have been filled so far.
    """

    def __init__(
        self,
        stack: Stack,
        denoisers: Sequence["Denoiser"],
        options: StackOptions,
        source: Path,
        scaling: Scaling | None = None,
    ):
        self._denoisers = denoisers
        self._fills = options.nan == "fill"
        self.filled = 0
        self.scaling = scaling or choose_scaling(stack, denoisers, options, source)
        self.stack = stack.selected(parse_selection(options.select, options.roi))
        layout = self.stack.layout
        if options.dtype != "same":
            layout = dataclasses.replace(layout, dtype=np.dtype(options.dtype))
        self.layout = layout

    def describe(self) -> str:
        """Says what is denoised, and how its values are scaled."""
        channels = self.layout.taken.get("C", range(self.layout.size("C")))
        scales = [self.scaling.of(channel) for channel in channels]
        ends = ", ".join(f"{each.low:g} and {each.high:g}" for each in scales[:4])
        many = ", …" * (len(scales) > 4)
        return f"{self.layout.describe()}; seen as 0 and 1: {ends}{many} ({self.scaling.method})."

    def steps(self) -> Iterator[Step]:
        """Yields what to denoise, one after the other; channel by channel."""
        layout = self.stack.layout
        height, width = layout.size("Y"), layout.size("X")
        together = max(1, _AT_ONCE // (height * width))
        ordered = sorted(layout.indices(), key=layout.channel)
        for _, each in itertools.groupby(ordered, layout.channel):
            planes = [*each]
            for start in range(0, len(planes), together):
                some = tuple(planes[start : start + together])
                for rows, columns in itertools.product(_parts(height), _parts(width)):
                    yield Step(some, rows, columns)

    def channel(self, step: Step) -> int:
        """Returns the channel of a step's planes in the file, before any selection."""
        return self.stack.layout.file_channel(step.indices[0])

    def _denoiser(self, step: Step) -> "Denoiser":
        return self._denoisers[self.channel(step) if len(self._denoisers) > 1 else 0]

    def read(self, step: Step) -> tuple[np.ndarray, slice, slice]:
        """Reads a step's planes, [N, h, w] or [N, h, w, S], with what the network sees around.

        Also returns the slices of these that the step fills.
        """
        layout = self.stack.layout
        margin = _margin(self._denoiser(step))
        spans, inner = [], []
        for part, axis in (step.rows, "Y"), (step.columns, "X"):
            start = max(0, part.start - margin)
            spans.append(slice(start, min(layout.size(axis), part.stop + margin)))
            inner.append(slice(part.start - start, part.stop - start))
        planes = [self.stack.read(index, *spans) for index in step.indices]
        for number, plane in enumerate(planes):
            if missing := count_missing(plane[tuple(inner)]):
                if not self._fills:
                    place = ", ".join(
                        f"{axis} {n}"
                        for axis, n in zip(layout.outer, step.indices[number], strict=True)
                    )
                    raise ImageError(
                        f"holds values that are not finite (NaN or infinity){place and ', at '}"
                        f"{place}. To replace them by their neighbours: --nan fill."
                    )
                self.filled += missing
            planes[number] = fill_missing(plane) if self._fills else plane
        return np.stack(planes), inner[0], inner[1]

    def denoise(self, step: Step, planes: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Denoises what `read` has returned; returns the planes that the step fills."""
        scale = self.scaling.of(self.channel(step))
        result = self._denoiser(step).scaled(planes, scale, dtype=self.layout.dtype)
        return result[:, rows, columns]


def _run(
    works: Sequence[StackWork],
    steps: Sequence[tuple[int, Step]],
    file: "PartialStackFile | _Array",
    bar: tqdm,
) -> None:
    """Takes the steps that are not done yet; reads ahead and writes behind in a thread."""

    def write(number: int, step: Step, result: np.ndarray, done: int) -> None:
        for index, plane in zip(step.indices, result, strict=True):
            file.write(number, index, step.rows, step.columns, plane)
        file.count(done)

    def share(number: int, step: Step) -> float:
        layout = works[number].layout
        pixels = (step.rows.stop - step.rows.start) * (step.columns.stop - step.columns.start)
        return len(step.indices) * pixels / (layout.size("Y") * layout.size("X"))

    first = file.done
    rest = steps[first:]
    bar.update(sum(share(*each) for each in steps[:first]))
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(works[n].read, step) for n, step in rest[:1]]
        writing: Future[None] | None = None
        try:
            for place, (number, step) in enumerate(rest):
                planes, rows, columns = reading.pop().result()
                if place + 1 < len(rest):
                    following, next_step = rest[place + 1]
                    reading.append(thread.submit(works[following].read, next_step))
                result = works[number].denoise(step, planes, rows, columns)
                if writing:
                    writing.result()
                writing = thread.submit(write, number, step, result, first + place + 1)
                bar.update(share(number, step))
            if writing:
                writing.result()
        except BaseException:
            for each in reading:
                each.cancel()
            raise


def choose_scaling(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions, source: Path
) -> Scaling:
    """Returns how a stack's values are scaled, with a scale for each channel.

    Args:
        stack: the whole stack, before any selection.
        denoisers: one for all channels, or one for each.
        options: of which `normalize` and `nan` matter.
        source: the stack's file, for messages.

    Raises:
        ConfigError: if there are too many models, or they have no scaling, or one for other
            channels.
        ImageError: if the file is damaged, or has values that are not finite.
    """
    channels = stack.layout.size("C")
    if len(denoisers) not in (1, channels):
        raise ConfigError(
            f"{source} has {counted(channels, 'channel')}: give one --model for all of them, or "
            f"one for each. Received: {len(denoisers)} models"
        )
    method = parse_scaling(options.normalize)
    scalings = [each for denoiser in denoisers if (each := denoiser.scaling)]
    are_trained = len(scalings) == len(denoisers)
    if method == "auto":
        is_color = stack.layout.samples > 1 and stack.layout.dtype in (np.uint8, np.uint16)
        method = "model" if are_trained else "dtype" if is_color else "range"
    if method != "model":
        return measure_scaling(stack, method, ignore_nan=options.nan == "fill")
    if not are_trained:
        raise ConfigError(
            "The model was trained on pictures, and has no scaling of its own: omit --normalize "
            f"model. Received: --normalize {options.normalize}"
        )
    scales = []
    for channel in range(channels):
        own = scalings[channel if len(scalings) > 1 else 0]
        if len(own.channels) not in (1, channels) and len(scalings) == 1:
            raise ConfigError(
                f"The model was trained on {len(own.channels)} channels, and {source} has "
                f"{channels}: give one --model for each, or --normalize {own.method}."
            )
        scales.append(own.of(channel if len(scalings) == 1 else 0))
    method = scalings[0].method
    _compare(stack, scales, source, method)
    return Scaling(f"as in training, {method}", tuple(scales))


def _compare(stack: Stack, scales: Sequence[Scale], source: Path, method: str) -> None:
    """Warns of values that are far from those that the model was trained on."""
    found = measure_scaling(stack, "deviation", ignore_nan=True)
    for here, trained in zip(found.channels, scales, strict=True):
        apart = abs(here.mean - trained.mean) > _FAR * trained.deviation
        ratio = here.deviation / trained.deviation if trained.deviation else 1.0
        if apart or not 1 / _RATIO < ratio < _RATIO:
            warnings.warn(
                f"{source}: values (mean {here.mean:g}, deviation {here.deviation:g}) unlike those "
                f"that the model was trained on (mean {trained.mean:g}, deviation "
                f"{trained.deviation:g}). To scale them by their own: --normalize {method}.",
                CbsnWarning,
                stacklevel=2,
            )
            return


def _parts(length: int) -> list[slice]:
    """Divides an axis into parts that begin at multiples of `_GRID`."""
    count = max(1, math.ceil(length / _BLOCK))
    side = math.ceil(length / count / _GRID) * _GRID
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]


def _margin(denoiser: "Denoiser") -> int:
    """Returns how many pixels around a part the network has to see, a multiple of `_GRID`."""
    recipe, network = denoiser.recipe, denoiser.network
    reach = (network.halo + recipe.denoise_pad) * recipe.denoise_stride
    reach += (network.halo + 2) * denoiser.r3  # the second pass sees results of the first
    return math.ceil(max(1, reach) / _GRID) * _GRID
