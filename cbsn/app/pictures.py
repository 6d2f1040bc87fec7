"""The pictures of a user: their files, their results, and what the page is told of them."""

import dataclasses
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from unicodedata import category, normalize

import numpy as np

from cbsn.app.disk import Disk
from cbsn.app.jobs import Cancelled, Job
from cbsn.app.views import View
from cbsn.errors import CbsnError, ConfigError, ImageError, in_one_line, plain_reason
from cbsn.images.image_files import read_header, read_picture, write_picture
from cbsn.images.stacks.opening import is_stack
from cbsn.inference.kept import KeptResult
from cbsn.inference.options import QUALITIES, Strength
from cbsn.inference.outputs import FORMATS, plan_outputs

_LONGEST_NAME = 200  # bytes; results get suffixes, and file systems allow 255
_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of pairs, line and paragraph ends


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a picture is denoised.

    Args:
        quality: a key of `QUALITIES`. Default "default".
        adapted: int, the number of the adapted model, or 0 for one that was not adapted.
        uncertainty: bool, whether to estimate how far results may be from the truth.

    Raises:
        ConfigError: if there is no such quality.
    """

    quality: str = "default"
    adapted: int = 0
    uncertainty: bool = False

    def __post_init__(self):
        if self.quality not in QUALITIES:
            raise ConfigError(
                f"The quality is one of {', '.join(QUALITIES)}. Received: {self.quality!r}"
            )

    @property
    def self_ensemble(self) -> bool:
        """Whether the picture is denoised in eight orientations."""
        return self.quality == "best" or self.uncertainty


@dataclasses.dataclass(frozen=True)
class Output:
    """How a result becomes a file.

    Args:
        strength: for luma and colour.
        format: one of `PICTURE_FORMATS`.

    Raises:
        ConfigError: if there is no such format.
    """

    strength: Strength = dataclasses.field(default_factory=Strength)
    format: str = "auto"

    def __post_init__(self):
        if self.format not in PICTURE_FORMATS:
            accepted = ", ".join(PICTURE_FORMATS)
            raise ConfigError(f"The format is one of {accepted}. Received: {self.format!r}")


PICTURE_FORMATS = tuple(each for each in FORMATS if each != "zarr")
"""The values of `--format` that are not for stacks alone."""


@dataclasses.dataclass(eq=False)
class Result:
    """A picture that was denoised, as long as there is room for it.

    Args:
        settings: how.
        folder: where its files are.
        size: bytes that are reserved for them.
        kept: what the network returned.
        views: what the browser shows: "noisy", "denoised" and maybe "uncertainty".
        icc_profile: of the picture's colours, for the browser.
        heat_peak: float, the uncertainty at the end of the colours, in levels of 255; or None.
    """

    settings: Settings
    folder: Path
    size: int
    kept: KeptResult
    views: Mapping[str, View]
    icc_profile: bytes | None = None
    heat_peak: float | None = None
    used: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def sigma_file(self) -> Path:
        """The file of the uncertainty, if there is one."""
        return self.folder / "uncertainty.tif"


@dataclasses.dataclass(frozen=True)
class Final:
    """A result's file, as a batch has written it."""

    path: Path
    size: int


@dataclasses.dataclass(frozen=True)
class Order:
    """What a batch wants of a picture: a result, in a file."""

    settings: Settings
    output: Output
    target: Path


class UserPicture:
    """A picture that a user has given.

    Args:
        path: its file, under the name that it had.
        size: bytes of the file.
        disk: where bytes are reserved.
    """

    def __init__(self, path: Path, size: int, disk: Disk):
        header = read_header(path)
        self.id = secrets.token_urlsafe(12)
        self.path = path
        self.width, self.height = header.width, header.height
        self.size = size
        self.error = ""
        self.notes: list[str] = []  # of the result
        self.losses: list[str] = []  # of the file of it that was written last
        self.job: Job | None = None
        self.order: Order | None = None  # of a batch, until its file is written
        self.is_measured = False  # whether the job is a report of its noise
        self.noise: dict[str, Any] | None = None
        self.result: Result | None = None
        self.final: Final | None = None
        self.noisy: View | None = None  # while it is denoised for the first time
        self.number = 0  # of the view that is shown, which makes its addresses new
        self._disk = disk

    @property
    def name(self) -> str:
        """The name that the user's file had."""
        return self.path.name

    @property
    def figure(self) -> Path:
        """The file of the figure of its noise, if that was reported."""
        return self.path.parent.with_name(f"noise-{self.id}.png")

    @property
    def views(self) -> Mapping[str, View]:
        """What can be shown."""
        if self.result:
            return self.result.views
        return {"noisy": self.noisy} if self.noisy else {}

    @property
    def state(self) -> str:
        """What is done with it: "waiting", "working", "failed", "done" or "new"."""
        if self.job:
            return "working" if self.job.is_running else "waiting"
        if self.error:
            return "failed"
        return "done" if self.result or self.final else "new"

    def drop_result(self) -> None:
        """Deletes the result; it can be made again."""
        result, self.result = self.result, None
        if result:
            # Who reads its files just now has them mapped, and goes on.
            shutil.rmtree(result.folder, ignore_errors=True)
            self._disk.release(result.size)
            self.number += 1

    def drop_final(self) -> None:
        """Deletes the file that a batch has written."""
        final, self.final = self.final, None
        self.losses = []
        if final:
            final.path.unlink(missing_ok=True)
            self._disk.release(final.size)

    def drop(self) -> None:
        """Deletes everything."""
        self.drop_result()
        self.drop_final()
        self.figure.unlink(missing_ok=True)
        size, self.size = self.size, 0
        self.path.unlink(missing_ok=True)
        self._disk.release(size)

    def write(self, target: Path, name: str, strength: Strength) -> None:
        """Writes the result with a strength, as `cbsn denoise` does, and notes what is lost.

        Args:
            target: the file.
            name: that the user gets it under.
            strength: for luma and colour.

        Raises:
            ImageError: if the file cannot be written, or if there is no result any more.
        """
        result = self.result
        gone = f"The result of {self.name} is not there any more: denoise the picture again."
        if result is None:
            raise ImageError(gone)
        result.used = time.monotonic()
        try:
            picture = read_picture(self.path)
            result.kept.blend(picture.pixels, strength)
            losses = write_picture(target, picture)
        except FileNotFoundError:  # replaced or removed just now
            raise ImageError(gone) from None
        except CbsnError as error:
            raise type(error)(self.explain(error)) from error
        self.losses = [f"{name}: {loss}." for loss in losses]

    def explain(self, error: Exception) -> str:
        """Returns an error in words for the user, without paths of the server."""
        if isinstance(error, Cancelled):
            return ""
        if isinstance(error, MemoryError):
            return f"{self.name}: {error or 'not enough memory'}"
        if isinstance(error, OSError) and error.strerror:
            return f"{self.name}: {error.strerror}"
        text = str(error) if isinstance(error, CbsnError) else plain_reason(error)
        return in_one_line(named(self.path, text))

    def describe(self, order: Mapping[Job, int]) -> dict[str, Any]:
        """Returns what the page is told, for JSON; `order` has the place of each job in line."""
        result, job = self.result, self.job
        views = self.views
        shown = views.get("noisy")
        return {
            "id": self.id,
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "bytes": self.size,
            "state": self.state,
            "share": round(job.share, 3) if job else None,
            "place": order.get(job, 0) if job else None,
            "error": self.error,
            "notes": [*self.notes, *self.losses],
            "number": self.number,
            "views": [*views],
            "size": shown.size if shown else None,
            "levels": shown.levels if shown else 0,
            "result": dataclasses.asdict(result.settings) if result else None,
            "heat_peak": result.heat_peak if result else None,
            "final": self.final.path.name if self.final else None,
            "is_measured": bool(job) and self.is_measured,
            "noise": self.noise,
        }


def named(path: Path, text: str) -> str:
    """Returns a text on a file with its name, and without its folder."""
    text = text.replace(str(path), path.name)
    return text if path.name in text else f"{path.name}: {text}"


def check_name(name: str) -> None:
    """Raises an ImageError unless a text is the name of a file, rather than a path or worse."""
    is_path = any(kind(name).name != name for kind in (PurePosixPath, PureWindowsPath))
    is_text = all(category(sign) not in _NO_TEXT for sign in name)
    if is_path or name in ("", ".", "..") or not is_text or name.startswith("."):
        raise ImageError(
            "A picture's name is that of a file, without folders, line breaks and control "
            f"characters. Received: {in_one_line(name)[:_LONGEST_NAME]!r}"
        )
    if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
        raise ImageError(
            f"A picture's name has at most {_LONGEST_NAME} bytes. Received: {len(name)} characters"
        )


def free_name(name: str, taken: set[str]) -> str:
    """Returns a name, with a number if another one would be the same on some file system."""
    folded = {_folded(each) for each in taken}
    path, number, free = PurePosixPath(name), 2, name
    while _folded(free) in folded:
        free = f"{path.stem}-{number}{path.suffix}"
        number += 1
    return free


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def check_picture(path: Path, most: float) -> None:
    """Raises an ImageError unless a file's header is that of a picture that can be denoised.

    Args:
        path: the file.
        most: megapixels that it may have.
    """
    if is_stack(path):
        raise ImageError(
            f"{path.name} is a stack: use cbsn denoise, or the plugin of napari, which know axes "
            "and channels."
        )
    header = read_header(path)
    if not header.pixel_bytes:
        read_picture(path)  # which says why
        raise ImageError(f"{path.name} is no picture.")
    header.check(path)
    if header.width * header.height > most * 1e6:
        raise ImageError(
            f"{path.name} has {header.width * header.height / 1e6:.4g} megapixels, and this server "
            f"takes up to {most:g}: start it with a larger --max_megapixels."
        )


def result_names(pictures: list[UserPicture], format: str) -> dict[UserPicture, str]:
    """Returns the names that `cbsn denoise` would give to the results of all pictures."""
    folder = Path("results")
    by_path = {picture.path: picture for picture in pictures}
    planned = plan_outputs([*by_path], folder, format)
    return {by_path[source]: str(target.relative_to(folder)) for source, target in planned.items()}


def needed_bytes(pixels: np.ndarray, *, uncertainty: bool) -> int:
    """Returns at most how many bytes the result of a picture takes on the disk."""
    # Floats, and two views of 8 bits with their smaller levels; floats and a coloured view.
    each = 4 + 3 + (4 + 4 if uncertainty else 0)
    return pixels.size * each + 2**20
