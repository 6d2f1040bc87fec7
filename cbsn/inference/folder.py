"""Denoising a folder or glob of picture files with a model."""

import collections
import contextlib
import dataclasses
import queue
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cbsn.errors import CbsnError, CbsnWarning, in_one_line
from cbsn.files import expanded
from cbsn.images.finding import IMAGE_SUFFIXES, JPEG_SUFFIXES, RESULTS
from cbsn.images.image_files import (
    check_jpeg_quality,
    read_header,
    read_picture,
    write_picture,
)
from cbsn.images.picture import Picture
from cbsn.inference.forecast import Forecast, counted
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs, top_folder
from cbsn.inference.uncertainty import Uncertainty, sigma_picture
from cbsn.noise.removal import Removal, Sample
from cbsn.progress import progress_bar, say, say_fault
from cbsn.value_range import check_white, value_range

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed if a server denoises
    from cbsn.inference.denoiser import Denoiser

BUDGET = 2**29  # most bytes of all pictures in memory together; a larger picture is there alone

# Takes a noisy picture, which it may overwrite, and a function to call with each share of the work
# that is done (they add up to 1). Returns the denoised picture.
DenoisePicture = Callable[[Picture, Callable[[float], None]], Picture]


def plan_files(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    recursive: bool = False,
    white: float | None = None,
    jpeg_quality: int = 95,
    axes: str | None = None,
) -> dict[Path, Path]:
    """Finds the pictures of folders or globs, and maps each source to the target of its result.

    Call this before loading a model, so that mistakes in the arguments are reported at once.
    Nothing is written.

    Args:
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results; see `plan_outputs`.
        format: one of `cbsn.inference.outputs.FORMATS`.
        recursive: whether to take the pictures in sub-folders, too, and keep the tree of folders
            below the folder given, or below the one that all given share. Default False.
        white: the value of white in the files, as for `read_picture`. Default None.
        jpeg_quality: int from 1 to 100, see `write_picture`. Default 95.
        axes: of TIFF files, see `is_stack`. Default None.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, another result or any file next to a
            source, the folder for the results cannot be made or written to, or `white` or
            `jpeg_quality` is out of range.
    """
    check_white(white)
    check_jpeg_quality(jpeg_quality)
    image_paths, save_path = [*image_paths], expanded(save_path)
    # A folder for the results that lies among the pictures holds those of an earlier run.
    sources = find_sources(image_paths, recursive, outside=save_path)
    if not recursive:
        _warn_of_sub_folders(image_paths, save_path)
    top = top_folder(image_paths) if recursive else None
    outputs = plan_outputs(sources, save_path, format, top=top, axes=axes)
    check_writable(save_path, f"--out {save_path}")
    return outputs


def _warn_of_sub_folders(image_paths: Iterable[str | Path], save_path: Path) -> None:
    """Warns of pictures directly in the sub-folders of folders, which are not taken."""
    count = 0
    for folder in filter(Path.is_dir, map(expanded, image_paths)):
        for sub in folder.iterdir():
            is_other = sub.name.startswith(".") or sub.name == RESULTS or sub == save_path
            is_other = is_other or sub.is_symlink()  # --recursive does not follow it
            with contextlib.suppress(OSError):  # a folder that may not be read, or no folder
                inside = [] if is_other or not sub.is_dir() else [*sub.iterdir()]
                count += sum(each.suffix.lower() in IMAGE_SUFFIXES for each in inside)
    if count:
        text = f"{counted(count, 'picture')} in sub-folders omitted; --recursive includes them."
        warnings.warn(text, CbsnWarning, stacklevel=3)


def denoise_files(
    denoiser: "Denoiser",
    outputs: Mapping[Path, Path],
    save_path: str | Path,
    *,
    white: float | None = None,
    jpeg_quality: int = 95,
    fast_share: float | None = None,
    uncertainties: Mapping[Path, Path] | None = None,
) -> int:
    """Denoises picture files with a model; see `denoise_each` for the other arguments.

    Prints the denoiser's `choices`; soon, how long it will take, if that is more than a minute, see
    `Forecast` for `fast_share`; at the end, which pictures lost more than their noise. With
    `uncertainties` from `plan_uncertainty`, also writes the standard deviation of the error of each
    result, float32 in the file's own units.

    Example:
        >>> outputs = plan_files(["holiday/*.jpg"], "clean")
        >>> denoise_files(Denoiser.load("photo"), outputs, "clean")
    """

    def denoise(picture: Picture, on_share: Callable[[float], None]) -> Picture:
        size = picture.pixels.shape[0] * picture.pixels.shape[1]

        def on_tile(share: float) -> None:
            on_share(share)
            forecast.count(share * size)

        highest = value_range(picture.pixels.dtype)
        if denoiser.scaling:  # of a model that was trained on stacks: by the file's values
            picture.range_in_file.stretch(picture.color, undo=True)
            picture = dataclasses.replace(picture, value_range=None)
        estimating = denoiser.estimating() if uncertainties else contextlib.nullcontext()
        try:  # in place, as there may be no room for two pictures
            with estimating as estimate:
                pixels = denoiser(picture.pixels, on_tile, in_place=True, white=highest)
        except MemoryError as error:
            reason = str(error) or "not enough memory"
            raise MemoryError(f"{reason}; try a smaller --tile, or another device") from error
        picture = picture.with_pixels(pixels)
        if estimate:
            estimated.append((picture, estimate))
        return picture

    def uncertainty(source: Path) -> tuple[Path, Picture]:
        assert uncertainties
        picture, estimate = estimated.pop()
        if estimate.calibration and (note := estimate.calibration.note):
            poor[note].append(str(source))
        return uncertainties[source], sigma_picture(picture, estimate)

    estimated: list[tuple[Picture, Uncertainty]] = []
    poor: dict[str, list[str]] = collections.defaultdict(list)
    denoiser.check_takes_pictures(f"{next(iter(outputs))} is a picture")
    headers = [read_header(source) for source in outputs]
    total = sum(header.width * header.height for header in headers)
    forecast = Forecast(len(headers), total, fast_share)
    denoiser.prepare(total)
    say(denoiser.choices)
    status = denoise_each(
        denoise,
        outputs,
        save_path,
        white=white,
        jpeg_quality=jpeg_quality,
        name_losses=denoiser.scaling is None,  # else the values are none of a photograph
        also=uncertainty if uncertainties else None,
    )
    if denoiser.repaired:
        what = counted(denoiser.repaired, "pixel")
        say_fault(f"note: {what} that lay far beyond the noise around repaired.")
    for note, names in poor.items():
        say_fault(in_one_line(f"note: {_such_as(names)}: {note}"))
    return status


def denoise_each(
    denoise: DenoisePicture,
    outputs: Mapping[Path, Path],
    save_path: str | Path,
    *,
    white: float | None = None,
    jpeg_quality: int = 95,
    name_losses: bool = False,
    also: Callable[[Path], tuple[Path, Picture]] | None = None,
) -> int:
    """Denoises picture files. A broken one does not stop the others.

    While one picture is denoised, the next is read and the previous one written. Shows a progress
    bar, and prints at the end which value ranges the pictures had, and which failed and why. After
    Ctrl-C, no picture is begun and the file being written is discarded, so all files are complete.

    Args:
        denoise: function that denoises one picture.
        outputs: source to target, from `plan_files`.
        save_path: folder of the targets, made if it does not exist.
        white: see `plan_files`.
        jpeg_quality: see `plan_files`.
        name_losses: whether to print which pictures lost more than their noise. Default False.
        also: function from the source of the picture that was denoised last to another file that is
            written before the result. Default None: there is none.

    Returns:
        Exit status: 0, or 1 if a picture failed.
    """
    check_jpeg_quality(jpeg_quality)
    save_path = expanded(save_path)
    save_path.mkdir(parents=True, exist_ok=True)
    if any(target.suffix.lower() in JPEG_SUFFIXES for target in outputs.values()):
        say(f"JPEG is written at quality {jpeg_quality}; --jpeg_quality changes it.")
    ranges: dict[str, list[str]] = collections.defaultdict(list)
    lost: dict[Path, Removal] = {}
    with (
        progress_bar(total=len(outputs), unit="image") as bar,
        _Files(outputs, white, jpeg_quality, bar) as files,
    ):
        for work in files:
            if work.picture is not None:
                found = work.picture.value_range
                if found and white is None:
                    if work.picture.pixels.dtype.kind == "f":
                        ranges["floats with a range of their own"].append(
                            f"{work.source} ({found})"
                        )
                    else:
                        ranges[str(found)].append(str(work.source))
                try:
                    sample = Sample(work.picture.color) if name_losses else None
                    work.picture = _with_progress(denoise, work.picture, work.source, bar)
                    work.also = also and also(work.source)
                    removal = sample and sample.compared_with(work.picture.color)
                    if removal and removal.degree:
                        lost[work.source] = removal
                except Exception as error:  # the others are still denoised
                    work.picture, work.error = None, error
            files.write(work)

    count = f"{len(outputs) - len(files.failures)} of {counted(len(outputs), 'picture')}"
    say(in_one_line(f"{count} denoised, in {save_path}"))
    notes = [
        f"read as {kind}: {_such_as(examples)}. If white is another value: --white N"
        for kind, examples in ranges.items()
    ]
    if lost:
        # The example is the picture that lost most.
        worst_first = sorted(lost, key=lambda source: lost[source].noise - lost[source].removed)
        names = [f"{source} ({lost[source]})" for source in worst_first]
        notes.append(
            f"more than the noise was removed from {_such_as(names)}: look for texture that is "
            "gone, and take --strength 0.5 if it is"
        )
    for note in notes:
        say_fault(in_one_line(f"note: {note}"))
    for failure in files.failures:
        say_fault(f"failed: {failure}")
    return 1 if files.failures else 0


def _such_as(names: list[str]) -> str:
    """Says how many pictures these are, with the first as an example."""
    example = names[0] if len(names) == 1 else f"such as {names[0]}"
    return f"{counted(len(names), 'picture')}, {example}"


@dataclasses.dataclass
class _Work:
    """A picture on its way from one file to another, or the error that stopped it."""

    source: Path
    target: Path
    picture: Picture | None = None
    error: Exception | None = None
    also: tuple[Path, Picture] | None = None  # another file, written before the result


class _Files(contextlib.AbstractContextManager["_Files"]):
    """Reads pictures ahead and writes results in the background, each in one thread.

    Iteration yields the pictures in order, including those that cannot be read. Pass each to
    `write`. At most three are in memory: the next is read only when all together take at most
    `BUDGET` bytes, or when it is alone. After the block, `failures` says why pictures failed, in
    their order.
    """

    def __init__(
        self, outputs: Mapping[Path, Path], white: float | None, jpeg_quality: int, bar: tqdm
    ):
        self.failures: list[str] = []
        self._outputs = outputs
        self._white = white
        self._jpeg_quality = jpeg_quality
        self._bar = bar
        self._threads = ThreadPoolExecutor(2)
        self._read: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._writing: Future[None] | None = None
        self._sizes: collections.deque[int] = collections.deque()  # of the pictures in memory
        self._room = threading.Condition()
        self._stopping = threading.Event()

    def __iter__(self) -> Iterator[_Work]:
        reading = self._threads.submit(self._read_all)
        yield from iter(self._read.get, None)
        reading.result()

    def write(self, work: _Work) -> None:
        """Begins to write a result or report an error, once the previous one is done."""
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
        """Reserves `size` bytes for a picture. Returns False if nothing more is to be read."""

        def fits() -> bool:
            # One picture is denoised, one written, and this one read.
            few = len(self._sizes) < 3 and sum(self._sizes) + size <= BUDGET
            return few or not self._sizes or self._stopping.is_set()

        with self._room:
            self._room.wait_for(fits)
            self._sizes.append(size)
        return not self._stopping.is_set()

    def _finish(self, work: _Work) -> None:
        losses = []
        try:
            if work.picture is not None:
                try:
                    work.target.parent.mkdir(parents=True, exist_ok=True)
                    cancelled = self._stopping.is_set
                    with contextlib.ExitStack() as undoing:
                        if work.also:
                            write_picture(*work.also, cancelled=cancelled)
                            undoing.callback(work.also[0].unlink, missing_ok=True)
                        losses = write_picture(
                            work.target,
                            work.picture,
                            jpeg_quality=self._jpeg_quality,
                            cancelled=cancelled,
                        )
                        undoing.pop_all()  # both are complete
                except CancelledError:
                    return
                except Exception as error:
                    work.error = error
            if work.error is not None:
                self.failures.append(self._describe(work.source, work.error))
            for loss in losses:
                say_fault(in_one_line(f"{work.target}: {loss}."))
            self._bar.update()
        finally:
            # Large ones are freed before the next is read.
            work.picture = work.error = work.also = None
            with self._room:
                self._sizes.popleft()
                self._room.notify_all()

    def _describe(self, source: Path, error: Exception) -> str:
        """Says in one line why a picture failed. Prints the traceback of an unexpected error."""
        if isinstance(error, CbsnError):
            return in_one_line(str(error))
        if isinstance(error, MemoryError | OSError):
            return in_one_line(f"{source}: {str(error) or 'not enough memory'}")
        say_fault("".join(traceback.format_exception(error)))
        return in_one_line(f"{source}: {type(error).__name__}: {error}")


def _with_progress(denoise: DenoisePicture, picture: Picture, source: Path, bar: tqdm) -> Picture:
    """Denoises a picture. Its name appears in the bar, and in the message of an error."""
    done = 0.0

    def on_share(share: float) -> None:
        nonlocal done
        done += share
        bar.set_postfix_str(in_one_line(f"{source.name} {done:.0%}"))

    try:
        return denoise(picture, on_share)
    except CbsnError as error:
        raise type(error)(f"{source}: {error}") from error
