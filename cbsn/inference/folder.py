"""Denoising a folder or glob of picture files with a model."""

import collections
import copy
import dataclasses
import functools
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, in_one_line
from cbsn.files import expanded
from cbsn.images.image_files import picture_size, pixel_bytes, read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs
from cbsn.noise.removal import Removal, Sample
from cbsn.orientations import NUM_ORIENTATIONS
from cbsn.value_range import check_white, value_range

_LEAST_PIXELS = 1_000_000
"""Of all pictures: fewer are not worth measuring, as the models that ship need no minute for them,
even on a slow machine."""

_SIDE, _LARGEST_SIDE = 256, 1024
"""Of the picture that the speed is measured on, at first and at most, in pixels."""

_LONG_ENOUGH = 0.2
"""Seconds that a measurement should take at least: a GPU needs a larger picture for that."""


def say_duration(
    denoiser: Denoiser,
    sources: Iterable[Path],
    fast_share: float | None = None,
    *,
    measure: Callable[[Denoiser], float] | None = None,
) -> None:
    """Prints how long pictures will take, if that is more than a minute.

    Args:
        denoiser: what will denoise them.
        sources: the picture files, of which the headers are read.
        fast_share: float in (0, 1), the part of that time that `--quality fast` takes. None, the
            default, where it would be another choice than the user's.
        measure: returns the seconds that a pixel takes here, without the rims of tiles and in one
            orientation. Default `seconds_per_pixel`.

    Example:
        >>> say_duration(denoiser, sources, 0.3)
        About 14 minutes for 31 pictures of 372 megapixels; --quality fast takes about 4 minutes.
    """
    sizes = [picture_size(source) for source in sources]
    pixels = sum(width * height for width, height in sizes)
    orientations = NUM_ORIENTATIONS if denoiser.options.self_ensemble else 1
    if pixels * orientations < _LEAST_PIXELS:
        return
    speed = (measure or seconds_per_pixel)(denoiser)
    computed = sum(_reach(denoiser, width) * _reach(denoiser, height) for width, height in sizes)
    seconds = speed * orientations * computed
    if seconds < 60:
        return
    text = f"About {_words(seconds)} for {len(sizes)} picture{'s' * (len(sizes) > 1)} of "
    text += f"{pixels / 1e6:.0f} megapixel{'s' * (round(pixels / 1e6) > 1)}"
    if fast_share is not None:
        fast = fast_share * seconds
        takes = "less than a minute" if fast < 60 else f"about {_words(fast)}"
        text += f"; --quality fast takes {takes}"
    print(f"{text}.", flush=True)


def seconds_per_pixel(denoiser: Denoiser) -> float:
    """Measures how long a pixel takes on this machine, as `say_duration` needs it."""
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


def _time(denoiser: Denoiser, picture: np.ndarray) -> float:
    start = time.perf_counter()
    denoiser(picture)
    return time.perf_counter() - start


def _reach(denoiser: Denoiser, size: int) -> int:
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


Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")

BUDGET = 2**29
"""Bytes that the items at work may take together; one that takes more is at work alone."""


def overlap(
    items: Iterable[Item],
    *,
    size: Callable[[Item], int],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read, Callable[[], None]], Computed],
    write: Callable[[Item, Computed, Callable[[], bool]], Written],
    report: Callable[[Item, Written | None, Exception | None], None],
) -> None:
    """Takes items through reading, computing and writing; each of the three has one at a time.

    So at most three items are in memory; and the next is read only when all of them together take
    no more than `BUDGET` bytes, or it is alone. Items are read, computed, written and reported in
    their order. What fails for one does not stop the others.

    `read` and `write` run in a thread of their own each, all else in the caller's. Ctrl-C ends it:
    nothing more is begun, `write` is told to give up, and what is running is waited for.

    Args:
        items: in the order wanted; hashable.
        size: from an item to the bytes that it will take; asked before it is read.
        read: from an item to what is computed.
        compute: from an item and what was read to what is written. Its third argument is a
            function to call now and then, so that what has been written meanwhile is reported.
        write: from an item and what was computed to what is reported. Its third argument says
            whether to give up.
        report: takes an item, what `write` returned, and None; or an item, None, and the
            exception of the one of the three that failed.
    """
    size = functools.cache(size)
    waiting = collections.deque(items)
    at_work: collections.deque[Item] = collections.deque()  # the one that is written is first
    reading: Future[Read] | None = None
    writing: Future[Written] | None = None
    ending = threading.Event()

    def start_reading() -> None:
        nonlocal reading
        if waiting and not reading:
            together = sum(map(size, (*at_work, waiting[0])))
            if together <= BUDGET or not at_work:
                at_work.append(waiting.popleft())
                reading = reader.submit(read, at_work[-1])

    def finish_writing() -> None:
        nonlocal writing
        if writing:
            outcome = _outcome(writing)
            writing = None
            report(at_work.popleft(), *outcome)

    def advance() -> None:
        if writing and writing.done():
            finish_writing()
        start_reading()

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            while waiting or reading:
                advance()
                if not reading:  # there is no room beside the one that is written
                    finish_writing()
                    start_reading()
                given, error = _outcome(reading)
                reading = None
                item = at_work[-1]
                advance()
                if error is None:
                    given, error = _attempt(compute, item, given, advance)
                finish_writing()
                if error is None:
                    writing = writer.submit(write, item, given, ending.is_set)
                else:
                    report(at_work.popleft(), None, error)
                given = error = None  # which may be all that holds on to a large item
            finish_writing()
        except BaseException:
            ending.set()
            raise


def _outcome(future: Future) -> tuple[Any, Exception | None]:
    """What a future returned, None if it failed, and why it failed; waits for it."""
    error = future.exception()
    return (future.result(), None) if error is None else (None, error)


def _attempt(function: Callable, *arguments: Any) -> tuple[Any, Exception | None]:
    """Like `_outcome`, of a function that is called here and now."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


Denoise = Callable[[Picture, Callable[[float], None]], Picture]
"""From a noisy picture, which may be overwritten, and a function to call with each share of the
work that is done (they add up to 1), to the denoised picture."""


def denoise_each(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    start: Callable[[], Denoise],
    *,
    format: str = "auto",
    white: float | None = None,
    name_losses: bool = False,
) -> int:
    """Denoises every picture of folders or globs; a broken one does not stop the others.

    Shows a progress bar, and at the end says which value ranges were seen in the pictures, and
    names those that failed, with the reasons. While one picture is denoised, the next is read and
    the previous written, as `overlap` says.

    Args:
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results, made if it is not there; see `plan_outputs`.
        start: returns what denoises; called once it is known that there is something to do.
        format: one of `cbsn.inference.outputs.FORMATS`.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.
        name_losses: whether to say at the end in which pictures more than the noise was removed.
            Default False.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, the results' folder cannot be made or
            written to, or `white` is none; nothing has been done then.
        CbsnError: whatever `start` raises.
    """
    check_white(white)
    save_path = expanded(save_path)
    outputs = plan_outputs(find_sources(image_paths), save_path, format)
    check_writable(save_path, f"--savepath {save_path}")
    denoise = start()
    save_path.mkdir(parents=True, exist_ok=True)
    failures = []
    ranges: dict[str, list[str]] = collections.defaultdict(list)
    lost: dict[Path, Removal] = {}
    with tqdm(total=len(outputs), unit="image") as progress:

        def compute(source: Path, picture: Picture, pause: Callable[[], None]) -> Picture:
            found = picture.value_range
            if found and white is None:
                if picture.pixels.dtype.kind == "f":
                    ranges["floats of a range of their own"].append(f"{source} ({found})")
                else:
                    ranges[str(found)].append(str(source))
            sample = Sample(picture.color) if name_losses else None
            denoised = _denoise(denoise, source, picture, progress, pause)
            removal = sample and sample.compared_with(denoised.color)
            if removal and removal.degree:
                lost[source] = removal
            return denoised

        def write(source: Path, picture: Picture, cancelled: Callable[[], bool]) -> list[str]:
            target = outputs[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            return write_picture(target, picture, cancelled=cancelled)

        def report(source: Path, losses: list[str] | None, error: Exception | None) -> None:
            if error is not None:
                failures.append(_describe(source, error, progress))
            for loss in losses or ():
                progress.write(in_one_line(f"{outputs[source]}: {loss}."), file=sys.stderr)
            progress.update()

        overlap(
            outputs,
            size=pixel_bytes,
            read=functools.partial(read_picture, white=white),
            compute=compute,
            write=write,
            report=report,
        )
    plural = "s" * (len(outputs) > 1)
    count = f"{len(outputs) - len(failures)} of {len(outputs)} picture{plural}"
    done = f"{count} denoised, in {save_path}"
    print(in_one_line(done))
    for kind, examples in ranges.items():
        text = f"read as {kind}: {_such_as(examples)}. If white is another value: --white N"
        print(in_one_line(f"note: {text}"), file=sys.stderr)
    if lost:
        # The example is the one that lost most.
        examples = sorted(lost, key=lambda source: lost[source].noise - lost[source].removed)
        names = [f"{source} ({lost[source]})" for source in examples]
        text = f"more than the noise was removed from {_such_as(names)}"
        advice = "look for texture that is gone, and take --strength 0.5 if it is"
        print(in_one_line(f"note: {text}: {advice}"), file=sys.stderr)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _such_as(names: Sequence[str]) -> str:
    """How many pictures these are, with the first as an example."""
    if len(names) == 1:
        return f"1 picture, {names[0]}"
    return f"{len(names)} pictures, such as {names[0]}"


def _denoise(
    denoise: Denoise, source: Path, picture: Picture, progress: tqdm, pause: Callable[[], None]
) -> Picture:
    """Denoises one picture, whose pixels may be overwritten: there may be no room for two."""
    done = 0.0

    def on_share(share: float) -> None:
        nonlocal done
        done += share
        progress.set_postfix_str(in_one_line(f"{source.name} {done:.0%}"))
        pause()

    try:
        return denoise(picture, on_share)
    except CbsnError as error:
        raise type(error)(f"{source}: {error}") from error


def _describe(source: Path, error: Exception, progress: tqdm) -> str:
    """Why a picture failed, in a line; of what was not foreseen, the traceback is shown."""
    if isinstance(error, CbsnError):
        return in_one_line(str(error))
    if isinstance(error, MemoryError | OSError):
        return in_one_line(f"{source}: {str(error) or 'not enough memory'}")
    progress.write("".join(traceback.format_exception(error)), file=sys.stderr)
    return in_one_line(f"{source}: {type(error).__name__}: {error}")


_DEFAULT_OPTIONS = DenoiseOptions()


def denoise_files(
    model_path: str | Path,
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    white: float | None = None,
    fast_share: float | None = None,
    options: DenoiseOptions = _DEFAULT_OPTIONS,
) -> int:
    """Denoises every picture of folders or globs, as `denoise_each` does, with one model.

    Says first what it computes with.

    Args:
        model_path: as for `Denoiser.load`.
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results, made if it is not there; see
            `cbsn.inference.outputs.plan_outputs`.
        format: one of `cbsn.inference.outputs.FORMATS`.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.
        fast_share: as for `cbsn.inference.folder.say_duration`. Default None.
        options: of `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, the results' folder cannot be made or
            written to, or `white` is none; nothing has been done then.
        ModelError: if the model cannot be loaded.
    """
    return denoise_with(
        lambda: Denoiser.load(model_path, options),
        image_paths,
        save_path,
        format=format,
        white=white,
        fast_share=fast_share,
    )


def denoise_with(
    load: Callable[[], Denoiser],
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    fast_share: float | None = None,
    **options: Any,
) -> int:
    """Denoises the pictures of folders or globs, as `denoise_files` does, with any denoiser.

    Args:
        load: returns it.
        image_paths: as for `denoise_files`.
        save_path: as for `denoise_files`.
        fast_share: as for `denoise_files`.
        **options: `format` and `white`, as for `denoise_files`.

    Returns:
        As `denoise_files`.

    Raises:
        CbsnError: as `denoise_files` and `load` do.
    """
    image_paths = [*image_paths]

    def start() -> Denoise:
        denoiser = load()
        say_duration(denoiser, find_sources(image_paths), fast_share, measure=_measure)
        print(denoiser.choices, flush=True)

        def denoise(picture: Picture, on_tile: Callable[[float], None]) -> Picture:
            try:
                white = value_range(picture.pixels.dtype)
                pixels = denoiser(picture.pixels, on_tile, in_place=True, white=white)
                return picture.with_pixels(pixels)
            except MemoryError as error:
                reason = str(error) or "not enough memory"
                raise MemoryError(f"{reason}; try a smaller --tile, or another device") from error

        return denoise

    return denoise_each(image_paths, save_path, start, name_losses=True, **options)


def _measure(denoiser: Denoiser) -> float:
    """As `seconds_per_pixel`, but on a GPU without pictures of sizes that nobody needs."""
    return denoiser.seconds_per_pixel() or seconds_per_pixel(denoiser)
