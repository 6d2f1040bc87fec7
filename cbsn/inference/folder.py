"""Denoising a folder or glob of picture files with a model."""

import collections
import copy
import dataclasses
import math
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, in_one_line
from cbsn.files import expanded
from cbsn.images.image_files import read_header, read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs
from cbsn.noise.removal import Removal, Sample
from cbsn.orientations import NUM_ORIENTATIONS
from cbsn.value_range import check_white, value_range

if TYPE_CHECKING:  # not loaded for pictures that a server denoises: it brings TensorFlow
    from cbsn.inference.denoiser import Denoiser

BUDGET = 2**29
"""Bytes that the pictures in memory may take together; one that takes more is there alone."""

_MOST_AT_WORK = 3
"""Pictures in memory: one is read, one denoised, one written."""


DenoisePicture = Callable[[Picture, Callable[[float], None]], Picture]
"""From a noisy picture, which may be overwritten, and a function to call with each share of the
work that is done (they add up to 1), to the denoised picture."""


def plan_files(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    white: float | None = None,
) -> dict[Path, Path]:
    """Finds the pictures of folders or globs, and decides where their results go.

    This is the first step of `denoise_files`, and finds what is wrong with its arguments. Take it
    before a model is loaded; nothing is written.

    Args:
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results; see `plan_outputs`.
        format: one of `cbsn.inference.outputs.FORMATS`.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.

    Returns:
        Source to target.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, the results' folder cannot be made or
            written to, or `white` is none.
    """
    check_white(white)
    save_path = expanded(save_path)
    outputs = plan_outputs(find_sources(image_paths), save_path, format)
    check_writable(save_path, f"--savepath {save_path}")
    return outputs


def denoise_files(
    denoiser: "Denoiser",
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    white: float | None = None,
    fast_share: float | None = None,
) -> int:
    """Denoises every picture of folders or globs; a broken one does not stop the others.

    Says how long it will take, if that is more than a minute, and what computes. The rest is as
    `denoise_each` does it; at the end it also names the pictures from which more than the noise was
    removed.

    Args:
        denoiser: the model.
        image_paths: as for `plan_files`.
        save_path: folder for the results, made if it is not there.
        format: as for `plan_files`.
        white: as for `plan_files`.
        fast_share: float in (0, 1), the part of the time that `--quality fast` takes. None, the
            default, where it would be another choice than the user's.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        CbsnError: as `plan_files` does; nothing has been done then.

    Example:
        >>> denoise_files(Denoiser.load("photo"), ["holiday/*.jpg"], "clean")
    """
    outputs = plan_files(image_paths, save_path, format=format, white=white)
    return denoise_planned(denoiser, outputs, save_path, white=white, fast_share=fast_share)


def denoise_planned(
    denoiser: "Denoiser",
    outputs: Mapping[Path, Path],
    save_path: str | Path,
    *,
    white: float | None = None,
    fast_share: float | None = None,
) -> int:
    """Does what `denoise_files` does, with the `outputs` of a `plan_files` before."""
    say_duration(denoiser, outputs, fast_share)
    print(denoiser.choices, flush=True)
    denoise = partial(_denoise, denoiser)
    return denoise_each(denoise, outputs, save_path, white=white, name_losses=True)


def _denoise(denoiser: "Denoiser", picture: Picture, on_share: Callable[[float], None]) -> Picture:
    """Denoises a picture in place: there may be no room for two."""
    white = value_range(picture.pixels.dtype)
    try:
        pixels = denoiser(picture.pixels, on_share, in_place=True, white=white)
    except MemoryError as error:
        reason = str(error) or "not enough memory"
        raise MemoryError(f"{reason}; try a smaller --tile, or another device") from error
    return picture.with_pixels(pixels)


def denoise_each(
    denoise: DenoisePicture,
    outputs: Mapping[Path, Path],
    save_path: str | Path,
    *,
    white: float | None = None,
    name_losses: bool = False,
) -> int:
    """Denoises picture files; a broken one does not stop the others.

    While one picture is denoised, the next is read and the previous one written. Shows a progress
    bar, and at the end says which value ranges were seen in the pictures, and names those that
    failed, with the reasons. After Ctrl-C nothing more is begun and the file that is being written
    is given up, so that there are whole files only.

    Args:
        denoise: what denoises one picture.
        outputs: source to target, from `plan_files`.
        save_path: the folder of the targets, made if it is not there.
        white: as for `plan_files`.
        name_losses: whether to say at the end in which pictures more than the noise was removed.
            Default False.

    Returns:
        Exit status: 0, or 1 if a picture failed.
    """
    save_path = expanded(save_path)
    save_path.mkdir(parents=True, exist_ok=True)
    ranges: dict[str, list[str]] = collections.defaultdict(list)
    lost: dict[Path, Removal] = {}
    with tqdm(total=len(outputs), unit="image") as bar, _Files(outputs, white, bar) as files:
        for work in files:
            if work.error is None:
                found = work.picture.value_range
                if found and white is None:
                    if work.picture.pixels.dtype.kind == "f":
                        ranges["floats of a range of their own"].append(f"{work.source} ({found})")
                    else:
                        ranges[str(found)].append(str(work.source))
                try:
                    sample = Sample(work.picture.color) if name_losses else None
                    _denoise_work(denoise, work, bar)
                    removal = sample and sample.compared_with(work.picture.color)
                    if removal and removal.degree:
                        lost[work.source] = removal
                except Exception as error:  # the others are denoised all the same
                    work.error = error
            files.write(work)

    plural = "s" * (len(outputs) > 1)
    count = f"{len(outputs) - len(files.failures)} of {len(outputs)} picture{plural}"
    print(in_one_line(f"{count} denoised, in {save_path}"))
    notes = [
        f"read as {kind}: {_such_as(examples)}. If white is another value: --white N"
        for kind, examples in ranges.items()
    ]
    if lost:
        # The example is the one that lost most.
        worst_first = sorted(lost, key=lambda source: lost[source].noise - lost[source].removed)
        names = [f"{source} ({lost[source]})" for source in worst_first]
        notes.append(
            f"more than the noise was removed from {_such_as(names)}: look for texture that is "
            "gone, and take --strength 0.5 if it is"
        )
    for note in notes:
        print(in_one_line(f"note: {note}"), file=sys.stderr)
    for failure in files.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if files.failures else 0


def _such_as(names: Sequence[str]) -> str:
    """How many pictures these are, with the first as an example."""
    if len(names) == 1:
        return f"1 picture, {names[0]}"
    return f"{len(names)} pictures, such as {names[0]}"


@dataclasses.dataclass
class _Work:
    """A picture on its way from one file to another, or the error that stopped it."""

    source: Path
    target: Path
    picture: Picture | None = None
    error: Exception | None = None


class _Files:
    """Reads pictures ahead and writes results behind, each in a thread of its own.

    Iterating over it gives the pictures in order, those that cannot be read too; each is to be
    handed to `write`. At most three are in memory, and the next is read only when all of them
    together take no more than `BUDGET` bytes, or it is alone.

    Attributes:
        failures: why pictures failed, in their order; complete when the block has ended.
    """

    def __init__(self, outputs: Mapping[Path, Path], white: float | None, bar: tqdm):
        self.failures: list[str] = []
        self._outputs = outputs
        self._white = white
        self._bar = bar
        self._threads = ThreadPoolExecutor(2)
        self._read: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._writing: Future[None] | None = None
        self._sizes: collections.deque[int] = collections.deque()  # of what is in memory
        self._room = threading.Condition()
        self._stopping = threading.Event()

    def __enter__(self) -> "_Files":
        return self

    def __iter__(self) -> Iterator[_Work]:
        reading = self._threads.submit(self._read_all)
        yield from iter(self._read.get, None)
        reading.result()

    def write(self, work: _Work) -> None:
        """Begins to write a result, or reports an error, when the one before is done."""
        if self._writing:
            self._writing.result()
        self._writing = self._threads.submit(self._finish, work)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._writing and kind is None:
                self._writing.result()
        finally:
            self._stopping.set()
            with self._room:
                self._room.notify_all()
            self._threads.shutdown()

    def _read_all(self) -> None:
        try:
            for source, target in self._outputs.items():
                if not self._wait_for_room(read_header(source).pixel_bytes):
                    return
                work = _Work(source, target)
                try:
                    work.picture = read_picture(source, white=self._white)
                except Exception as error:
                    work.error = error
                self._read.put(work)
        finally:
            self._read.put(None)

    def _wait_for_room(self, size: int) -> bool:
        """Takes room for a picture of so many bytes; False if there is no more to be read."""

        def fits() -> bool:
            few = len(self._sizes) < _MOST_AT_WORK and sum(self._sizes) + size <= BUDGET
            return few or not self._sizes or self._stopping.is_set()

        with self._room:
            self._room.wait_for(fits)
            self._sizes.append(size)
        return not self._stopping.is_set()

    def _finish(self, work: _Work) -> None:
        losses = []
        try:
            if work.error is None:
                try:
                    work.target.parent.mkdir(parents=True, exist_ok=True)
                    cancelled = self._stopping.is_set
                    losses = write_picture(work.target, work.picture, cancelled=cancelled)
                except CancelledError:
                    return
                except Exception as error:
                    work.error = error
            if work.error is not None:
                self.failures.append(self._describe(work.source, work.error))
            for loss in losses:
                self._bar.write(in_one_line(f"{work.target}: {loss}."), file=sys.stderr)
            self._bar.update()
        finally:
            work.picture = work.error = None  # large ones are freed before the next is read
            with self._room:
                self._sizes.popleft()
                self._room.notify_all()

    def _describe(self, source: Path, error: Exception) -> str:
        """Why a picture failed, in a line; of what was not foreseen, the traceback is shown."""
        if isinstance(error, CbsnError):
            return in_one_line(str(error))
        if isinstance(error, MemoryError | OSError):
            return in_one_line(f"{source}: {str(error) or 'not enough memory'}")
        self._bar.write("".join(traceback.format_exception(error)), file=sys.stderr)
        return in_one_line(f"{source}: {type(error).__name__}: {error}")


def _denoise_work(denoise: DenoisePicture, work: _Work, bar: tqdm) -> None:
    done = 0.0

    def on_share(share: float) -> None:
        nonlocal done
        done += share
        bar.set_postfix_str(in_one_line(f"{work.source.name} {done:.0%}"))

    try:
        work.picture = denoise(work.picture, on_share)
    except CbsnError as error:
        raise type(error)(f"{work.source}: {error}") from error


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
        seconds = min(_time(once, picture) for _ in range(2))
        if seconds >= _LONG_ENOUGH or side >= _LARGEST_SIDE:
            return seconds / (_reach(once, side) ** 2)
        side *= 2


def _time(denoiser: "Denoiser", picture: np.ndarray) -> float:
    start = time.perf_counter()
    denoiser(picture)
    return time.perf_counter() - start


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
