"""Taking the picture files of folders and globs through a denoiser, wherever that computes."""

import collections
import functools
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from cbsn.data.image_io import pixel_bytes, read_picture, write_picture
from cbsn.data.picture import Picture
from cbsn.errors import CbsnError, in_one_line
from cbsn.files import expanded
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs
from cbsn.inference.overlap import overlap
from cbsn.noise.removal import Removal, Sample
from cbsn.value_range import check_white

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
