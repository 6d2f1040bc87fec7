"""Taking the picture files of folders and globs through a denoiser, wherever that computes."""

import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from cbsn.data.image_io import find_images, pixel_bytes, read_picture, write_picture
from cbsn.data.picture import Picture
from cbsn.errors import CbsnError, ConfigError
from cbsn.inference.outputs import plan_outputs
from cbsn.inference.overlap import overlap

Denoise = Callable[[Picture, Callable[[float], None]], Picture]
"""From a noisy picture, which may be overwritten, and a function to call with each share of the
work that is done (they add up to 1), to the denoised picture."""


def denoise_each(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    start: Callable[[], Denoise],
    *,
    format: str = "auto",
) -> int:
    """Denoises every picture of folders or globs; a broken one does not stop the others.

    Shows a progress bar, and at the end names the pictures that failed, with the reasons. While one
    picture is denoised, the next is read and the previous written, as `overlap` says.

    Args:
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results, made if it is not there; see `plan_outputs`.
        start: returns what denoises; called once it is known that there is something to do.
        format: one of `cbsn.inference.outputs.FORMATS`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, or the results' folder cannot be
            made; nothing has been done then.
        CbsnError: whatever `start` raises.
    """
    save_path = Path(save_path).expanduser()
    sources = sorted({path for pattern in image_paths for path in find_images(pattern)})
    outputs = plan_outputs(sources, save_path, format)
    denoise = start()
    try:
        save_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No folder can be made at {save_path}: {error.strerror}.") from error
    failures = []
    with tqdm(total=len(outputs), unit="image") as progress:

        def compute(source: Path, picture: Picture, pause: Callable[[], None]) -> Picture:
            return _denoise(denoise, source, picture, progress, pause)

        def write(source: Path, picture: Picture, cancelled: Callable[[], bool]) -> list[str]:
            target = outputs[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            return write_picture(target, picture, cancelled=cancelled)

        def report(source: Path, losses: list[str] | None, error: Exception | None) -> None:
            if error is not None:
                failures.append(_describe(source, error, progress))
            for loss in losses or ():
                progress.write(f"{outputs[source]}: {loss}.", file=sys.stderr)
            progress.update()

        overlap(
            outputs,
            size=pixel_bytes,
            read=read_picture,
            compute=compute,
            write=write,
            report=report,
        )
    print(f"{len(outputs) - len(failures)} of {len(outputs)} pictures denoised, in {save_path}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _denoise(
    denoise: Denoise, source: Path, picture: Picture, progress: tqdm, pause: Callable[[], None]
) -> Picture:
    """Denoises one picture, whose pixels may be overwritten: there may be no room for two."""
    done = 0.0

    def on_share(share: float) -> None:
        nonlocal done
        done += share
        progress.set_postfix_str(f"{source.name} {done:.0%}")
        pause()

    try:
        return denoise(picture, on_share)
    except CbsnError as error:
        raise type(error)(f"{source}: {error}") from error


def _describe(source: Path, error: Exception, progress: tqdm) -> str:
    """Why a picture failed, in a line; of what was not foreseen, the traceback is shown."""
    if isinstance(error, CbsnError):
        return str(error)
    if isinstance(error, MemoryError | OSError):
        return f"{source}: {str(error) or 'not enough memory'}"
    progress.write("".join(traceback.format_exception(error)), file=sys.stderr)
    return f"{source}: {type(error).__name__}: {error}"
