"""Denoising stacks, plane by plane, with memory that does not depend on their size."""

import dataclasses
import itertools
import math
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, CbsnWarning, ImageError, in_one_line, plain_reason
from cbsn.images.stacks.opening import open_stacks, writer_of
from cbsn.images.stacks.scaling import Scaling, count_missing, fill_missing, without_alpha
from cbsn.images.stacks.stack import Layout, Stack, parse_selection
from cbsn.images.stacks.writing import PartialStackFile, partial_stack_file
from cbsn.inference.forecast import counted
from cbsn.inference.pixels import cast
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.progress import progress_bar, say, say_fault

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser

_BLOCK = 4096  # side of the parts of a large plane, in pixels, a multiple of `_GRID`
# Parts begin at multiples of this: of what networks halve and downsample, and of R3's period. So a
# part is computed as it is within the plane.
_GRID = 512
_FEW = 1e-3  # share of clipped values that is not worth a note
_SHIFT = 0.1  # of the mean, in standard deviations, that is worth one
_AT_ONCE = 2**22  # pixels of the planes that are denoised together, if they are small


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
        except Exception as error:  # the others are still denoised
            if not isinstance(error, CbsnError | OSError | MemoryError):
                say_fault("".join(traceback.format_exception(error)))
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
                if file.done:
                    kept = f"{file.done / len(steps):.0%} of {source.name} is done"
                    say_fault(f"{kept}; the same command goes on from there.")
                raise
        for note in dict.fromkeys(note for work in works for note in work.notes()):
            say_fault(in_one_line(f"note: {source}: {note}"))


def denoise_stack(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions
) -> np.ndarray:
    """Returns a stack, denoised, as an array with the stack's axes.

    For the arguments, see `denoise_stacks`. A `CbsnWarning` tells what was lost.
    """
    work = StackWork(stack, denoisers, options, Path("The stack"))
    file = _Array(work.layout)
    with progress_bar(total=work.layout.planes, unit="plane") as bar:
        _run([work], [(0, step) for step in work.steps()], file, bar)
    for note in work.notes():
        warnings.warn(f"The stack: {note}", CbsnWarning, stacklevel=2)
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
        self.filled = self._faulty = self._clipped = self._count = 0
        self._sums = np.zeros(3)  # of the noisy values, their squares, and the results
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
            if not count_missing(plane):  # in the margin, too
                continue
            if not self._fills:
                place = ", ".join(
                    f"{axis} {n}"
                    for axis, n in zip(layout.outer, step.indices[number], strict=True)
                )
                raise ImageError(
                    f"holds values that are not finite (NaN or infinity){place and ', at '}"
                    f"{place}. To replace them by their neighbours: --nan fill."
                )
            self.filled += count_missing(plane[tuple(inner)])
            planes[number] = fill_missing(plane)
        return np.stack(planes), inner[0], inner[1]

    def denoise(self, step: Step, planes: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Denoises what `read` has returned; returns the planes that the step fills."""
        scale = self.scaling.of(self.channel(step))
        dtype = self.layout.dtype
        is_changed = dtype.kind in "iu" and dtype != planes.dtype
        denoiser = self._denoiser(step)
        faults = [scale.faulty(without_alpha(plane)) for plane in planes]
        result = denoiser.scaled(
            planes, scale, dtype=np.float64 if is_changed else dtype, faults=faults
        )
        planes, result = planes[:, rows, columns], result[:, rows, columns]
        for noisy, made, fault in zip(planes, result, faults, strict=True):
            # In units of the range, as squares of large values might overflow.
            seen, made = (scale.apply(without_alpha(each)) for each in (noisy, made))
            self._count += seen.size
            if fault is not None:
                beyond = fault[0][rows, columns]
                self._faulty += int(np.count_nonzero(beyond))
                seen[beyond] = made[beyond] = 0
            sums = [each.sum(dtype=np.float64) for each in (seen, np.square(seen), made)]
            self._sums += sums
        if is_changed:
            limits = np.iinfo(dtype)
            beyond = (result < limits.min - 0.5) | (result > limits.max + 0.5)
            self._clipped += int(np.count_nonzero(beyond))
            result = cast(result, dtype, denoiser.options.rounding)
        return result

    def notes(self) -> Iterator[str]:
        """Yields what the user should know about the planes that have been denoised."""
        if self.filled:
            yield f"{self.filled} values that were not finite are filled."
        if self._faulty:
            what = counted(self._faulty, "pixel")
            yield f"{what} far beyond the others, such as hot pixels, stay as they are."
        if self._clipped > _FEW * self._count:
            share = self._clipped / self._count
            yield f"{share:.1%} of the values are clipped to what {self.layout.dtype} holds."
        mean, square, result = self._sums / max(1, self._count)
        deviation = math.sqrt(max(0.0, square - mean**2))
        if abs(result - mean) > _SHIFT * deviation > 0:
            yield (
                f"the mean changed by {abs(result - mean) / deviation:.0%} of the standard "
                "deviation: look whether faint signal is gone. For few photons, train on the "
                "stack, by cbsn train --recipe n2v-unet, and use --dtype float32."
            )


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
