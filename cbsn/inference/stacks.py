"""Denoising stacks, step by step, with memory that does not depend on their size."""

import contextlib
import dataclasses
import hashlib
import math
import os
import stat
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from cbsn.data.stack_repair import StackRepair
from cbsn.errors import CbsnError, CbsnWarning, ImageError, in_one_line, plain_reason
from cbsn.images.stacks.dropped import dropped_metadata
from cbsn.images.stacks.ome_sets import files_read_with
from cbsn.images.stacks.opening import open_stacks, writer_of
from cbsn.images.stacks.scaling import Scaling, count_missing, fill_missing, without_alpha
from cbsn.images.stacks.stack import Layout, Stack, parse_selection
from cbsn.images.stacks.writing import partial_stack_file
from cbsn.inference.forecast import counted
from cbsn.inference.pixels import cast
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.inference.stack_steps import Step, plan_steps
from cbsn.inference.stack_uncertainty import PairOfFiles, UncertainWork, sigma_layout
from cbsn.inference.volumes import check_z
from cbsn.progress import progress_bar, say, say_fault

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser

_FEW = 1e-3  # share of clipped values that is not worth a note
_SHIFT = 0.1  # of the mean, in standard deviations, that is worth one


def denoise_stacks(
    denoisers: Sequence["Denoiser"],
    outputs: Mapping[Path, Path],
    options: StackOptions,
    uncertainties: Mapping[Path, Path] | None = None,
) -> int:
    """Denoises the stacks of files and folders. A broken one does not stop the others.

    Results appear when they are complete. After an interruption, the same call goes on where it
    was. Shows a progress bar of planes, and prints which files failed and why.

    Args:
        denoisers: one for all channels, or one for each channel.
        outputs: source to target, from `plan_files`.
        options: how to read, scale and write them.
        uncertainties: source to the file for the standard deviation of the result's error, from
            `plan_uncertainty`. Default None: it is not estimated.

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
            sigma_target = uncertainties[source] if uncertainties else None
            _denoise_file(denoisers, source, target, options, sigma_target)
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
    denoisers: Sequence["Denoiser"],
    source: Path,
    target: Path,
    options: StackOptions,
    sigma_target: Path | None,
) -> None:
    with open_stacks(source, options.axes) as stacks:
        works = [StackWork(stack, denoisers, options, source) for stack in stacks]
        steps = [(number, step) for number, work in enumerate(works) for step in work.steps()]
        for work in works:
            say(in_one_line(f"{source.name}: {work.describe()}"))
        settings = {
            "source": [str(source.absolute()), source_state(source)],
            "models": [denoiser.sha256() for denoiser in denoisers],
            "options": [dataclasses.asdict(denoisers[0].options), dataclasses.asdict(options)],
            "scaling": [work.scaling.to_dict() for work in works],
            "steps": len(steps),
        }
        layouts = [work.layout for work in works]
        with contextlib.ExitStack() as files:
            file: Any = files.enter_context(
                partial_stack_file(target, writer_of(target), layouts, settings)
            )
            running: list[Any] = [*works]
            if sigma_target:
                create, sigmas = writer_of(sigma_target), [*map(sigma_layout, layouts)]
                second = partial_stack_file(sigma_target, create, sigmas, settings)
                file = PairOfFiles(file, files.enter_context(second))
                rest = steps[file.done :]
                running = [
                    UncertainWork(work, denoisers, [step for n, step in rest if n == number])
                    for number, work in enumerate(works)
                ]
            bar = files.enter_context(
                progress_bar(total=sum(each.planes for each in layouts), unit="plane")
            )
            if file.done:
                say(f"{target.name}: going on where an earlier run was stopped.")
            try:
                _run(running, steps, file, bar)
            except KeyboardInterrupt:
                if file.done:
                    kept = f"{file.done / len(steps):.0%} of {source.name} is done"
                    say_fault(f"{kept}; the same command goes on from there.")
                raise
        noted = works if not sigma_target else [*works, *running]
        notes = [note for work in noted for note in work.notes()]
        notes += [note for layout in layouts for note in dropped_metadata(layout, target)]
        for note in dict.fromkeys(notes):
            say_fault(in_one_line(f"note: {source}: {note}"))


def source_state(source: Path) -> str:
    """Returns a checksum that changes when a stack's file, files or folder do.

    The time of a folder does not change when the files in it do, so all of them count.
    """
    paths = sorted(source.rglob("*")) if source.is_dir() else files_read_with(source)
    digest = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # of a link that leads nowhere
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                entry = [os.path.relpath(path, source), status.st_size, status.st_mtime_ns]
                digest.update(repr(entry).encode())
    return digest.hexdigest()


def denoise_stack(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions
) -> np.ndarray:
    """Returns a stack, denoised, as an array with the stack's axes.

    For the arguments, see `denoise_stacks`. A `CbsnWarning` tells what was lost.
    """
    work = StackWork(stack, denoisers, options, Path("The stack"))
    file = _Array(work.layout)
    _run_here(work, work, file)
    return file.array


def denoise_stack_with_uncertainty(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a stack, denoised, and the standard deviation of its error, float32.

    For the arguments, see `denoise_stacks`; both have the stack's axes.
    """
    work = StackWork(stack, denoisers, options, Path("The stack"))
    file, second = _Array(work.layout), _Array(sigma_layout(work.layout))
    uncertain = UncertainWork(work, denoisers, [*work.steps()])
    _run_here(work, uncertain, PairOfFiles(file, second))
    for note in uncertain.notes():
        warnings.warn(f"The stack: {note}", CbsnWarning, stacklevel=2)
    return file.array, second.array


def _run_here(work: "StackWork", running: Any, file: Any) -> None:
    """Takes all steps of a stack; warns of what was lost."""
    with progress_bar(total=work.layout.planes, unit="plane") as bar:
        _run([running], [(0, step) for step in work.steps()], file, bar)
    for note in work.notes():
        warnings.warn(f"The stack: {note}", CbsnWarning, stacklevel=3)


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


class Seen(NamedTuple):
    """What the network sees of a step.

    Args:
        planes: [N, h, w] or [N, h, w, S], one for each index, of finite values.
        rows, columns: the part of these that the step fills.
        missing: for each plane, where values are filled that were not finite; None if none were.
    """

    planes: np.ndarray
    rows: slice
    columns: slice
    missing: Sequence[np.ndarray | None]


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
        self._of_volumes = any(each.of_volumes for each in denoisers)
        if self._of_volumes:
            check_z(stack.layout)
        self.scaling = scaling or choose_scaling(stack, denoisers, options, source)
        repairs = denoisers[0].options.repair if denoisers else None
        self._repair = StackRepair(stack, repairs, fills=self._fills, scale_of=self.scaling.of)
        self.stack = self._repair.stack.selected(parse_selection(options.select, options.roi))
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
        what = f"{self.layout.describe()}{', as volumes' * self._of_volumes}"
        return f"{what}; seen as 0 and 1: {ends}{many} ({self.scaling.method})."

    def steps(self, indices: Sequence[tuple[int, ...]] | None = None) -> Iterator[Step]:
        """Yields what to denoise, by default all planes; see `plan_steps`."""
        return plan_steps(self.stack.layout, self._denoiser, indices)

    def channel(self, step: Step) -> int:
        """Returns the channel of a step's planes in the file, before any selection."""
        return self.stack.layout.file_channel(step.indices[0])

    def _denoiser(self, index: Sequence[int]) -> "Denoiser":
        """Returns what denoises a plane."""
        channel = self.stack.layout.file_channel(index)
        return self._denoisers[channel if len(self._denoisers) > 1 else 0]

    def read(self, step: Step) -> Seen:
        """Reads what the network sees of a step."""
        layout = self.stack.layout
        spans, inner = [], []
        for part, axis in (step.rows, "Y"), (step.columns, "X"):
            start = max(0, part.start - step.margin)
            spans.append(slice(start, min(layout.size(axis), part.stop + step.margin)))
            inner.append(slice(part.start - start, part.stop - start))
        planes = [self.stack.read(index, *spans) for index in step.seen]
        own = range(*step.own.indices(len(planes)))
        missing: list[np.ndarray | None] = [None] * len(planes)
        for number, plane in enumerate(planes):
            if not count_missing(plane):  # in the margin, too
                continue
            if not self._fills:
                index = layout.in_file(step.seen[number])
                place = ", ".join(
                    f"{axis} {n}" for axis, n in zip(layout.outer, index, strict=True)
                )
                raise ImageError(
                    f"holds values that are not finite (NaN or infinity){place and ', at '}"
                    f"{place}. To replace them by their neighbours: --nan fill."
                )
            self.filled += count_missing(plane[tuple(inner)]) if number in own else 0
            missing[number] = ~np.isfinite(plane)
            planes[number] = fill_missing(plane)
        return Seen(np.stack(planes), inner[0], inner[1], missing)

    def denoise(self, step: Step, seen: Seen) -> np.ndarray:
        """Denoises what `read` has returned; returns the planes that the step fills."""
        planes, rows, columns, _ = seen
        scale = self.scaling.of(self.channel(step))
        dtype = self.layout.dtype
        # What the result may not hold.
        is_changed = dtype != planes.dtype and (
            dtype.kind in "iu" or not np.can_cast(planes.dtype, dtype)
        )
        denoiser = self._denoiser(step.indices[0])
        faults = [scale.faulty(without_alpha(plane)) for plane in planes]
        result = denoiser.scaled(
            planes, scale, dtype=np.float64 if is_changed else dtype, faults=faults
        )
        planes, result = (each[step.own, rows, columns] for each in (planes, result))
        for noisy, made, fault in zip(planes, result, faults[step.own], strict=True):
            # In units of the range, as squares of large values might overflow.
            before, made = (scale.apply(without_alpha(each)) for each in (noisy, made))
            self._count += before.size
            if fault is not None:
                beyond = fault[0][rows, columns]
                self._faulty += int(np.count_nonzero(beyond))
                before[beyond] = made[beyond] = 0
            sums = [each.sum(dtype=np.float64) for each in (before, np.square(before), made)]
            self._sums += sums
        if is_changed:
            is_whole = dtype.kind in "iu"
            limits = np.iinfo(dtype) if is_whole else np.finfo(dtype)
            least, most = float(limits.min), float(limits.max)
            beyond = (result < least - 0.5 * is_whole) | (result > most + 0.5 * is_whole)
            self._clipped += int(np.count_nonzero(beyond))
            result = cast(np.clip(result, least, most), dtype, denoiser.options.rounding)
        return result

    def notes(self) -> Iterator[str]:
        """Yields what the user should know about the planes that have been denoised."""
        if self.filled:
            yield f"{self.filled} values that were not finite are filled."
        layout = self.stack.layout
        if getattr(layout.metadata, "has_exif", False):
            yield "its EXIF data are dropped, as results that are stacks hold none."
        if layout.lost:
            yield layout.lost
        yield from self._repair.notes({layout.file_channel(index) for index in layout.indices()})
        if self._faulty:
            what = counted(self._faulty, "pixel")
            yield (
                f"{what} far beyond the others, such as hot pixels, stay as they are; cbsn denoise "
                "--repair pixels repairs them."
            )
        if self._clipped > _FEW * self._count:
            share = self._clipped / self._count
            yield f"{share:.1%} of the values are clipped to what {self.layout.dtype} holds."
        mean, square, result = self._sums / max(1, self._count)
        deviation = math.sqrt(max(0.0, square - mean**2))
        if abs(result - mean) > _SHIFT * deviation > 0:
            change = f"{abs(result - mean) / deviation:.0%} of the standard deviation"
            advice = "train on the stack, by cbsn train --recipe n2v-unet, and use --dtype float32"
            if any(each.recipe.scaling for each in self._denoisers):
                advice = "use --dtype float32, and train longer"
            yield (
                f"the mean changed by {change}: look whether faint signal is gone. For few "
                f"photons, {advice}."
            )


def _run(
    works: Sequence[Any],
    steps: Sequence[tuple[int, Step]],
    file: Any,
    bar: tqdm,
) -> None:
    """Takes the steps that are not done yet; reads ahead and writes behind in a thread.

    The works are each a `StackWork`, and the file a `PartialStackFile` or the like of it; or each
    an `UncertainWork`, and the file a `PairOfFiles`.
    """

    def write(number: int, step: Step, result: Any, done: int) -> None:
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
                seen = reading.pop().result()
                if place + 1 < len(rest):
                    following, next_step = rest[place + 1]
                    reading.append(thread.submit(works[following].read, next_step))
                result = works[number].denoise(step, seen)
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
