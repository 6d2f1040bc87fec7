"""What the submissions have in common: parts are denoised one by one, and then bundled."""

import abc
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, DataError, ImageError
from cbsn.evaluation.submit.progress import Progress
from cbsn.files import expanded

Denoise = Callable[[np.ndarray], np.ndarray]
"""From a noisy picture to a denoised one of the same shape and dtype, such as a `Denoiser`."""


class Submission(abc.ABC):
    """A benchmark's noisy pictures, and the folder where the submission is made of them.

    Args:
        source: folder of the benchmark's files.
        files: those files; their sizes and times tell whether they are the same on resume.
        shapes: shape of each part, by its name, in the order of the work.
        warning: str, what is unlike the real benchmark; empty if nothing is.
        out: folder to write; made, with its parents, by `run`.
        resume: whether to go on with the submission in `out`.

    Attributes:
        BENCHMARK: str, its name.
        PART: str, what a part is called.
        SUFFIX: str, of a part's file.
        DTYPE: NumPy dtype of the parts, noisy and denoised.
        BUNDLES: tuple of str, names below `out` of all that may be submitted.

    Raises:
        ConfigError: if `out` holds a submission and `resume` is False.
    """

    BENCHMARK: str
    PART: str
    SUFFIX: str
    DTYPE: type
    BUNDLES: tuple[str, ...]

    def __init__(
        self,
        *,
        source: Path,
        files: Iterable[Path],
        shapes: dict[str, tuple[int, ...]],
        warning: str,
        out: str | Path,
        resume: bool,
    ):
        self.shapes = shapes
        self.settings: dict[str, Any] = {}
        self._source = {"path": str(source), "files": {path.name: _state(path) for path in files}}
        self._warning = warning
        self.progress = Progress(expanded(out), f"{self.PART}s", self.BUNDLES, resume=resume)

    def run(
        self,
        denoise: Denoise,
        *,
        settings: dict[str, Any] | None = None,
        model: dict[str, str] | None = None,
    ) -> list[Path]:
        """Denoises the parts that are not there yet; when all are, writes what is to be submitted.

        Parts are kept as they are done. The first is denoised twice, and timed the second time, as
        graphs are built in the first.

        Args:
            denoise: is given the parts one by one, [H, W, 3] of `DTYPE`.
            settings: of `denoise`, JSON values by name: `--resume` insists on the same ones.
            model: likewise, its `path` and `sha256`; the path may differ on resume.

        Returns:
            The files or folders to submit.

        Raises:
            ConfigError: if the earlier work in `out` was begun with other settings, or `out` cannot
                be written.
            DataError: if a part of the source cannot be read.
            ImageError: if a part cannot be denoised, or comes back with another shape or dtype,
                or with values that are not finite.
        """
        progress = self.progress
        progress.begin(
            {
                "benchmark": self.BENCHMARK,
                "model": model or {"path": "", "sha256": ""},
                "settings": {**self.settings, **(settings or {})},
                "source": self._source,
            }
        )
        if self._warning:
            warning = f"warning: {self._warning}: the site will not take this submission"
            print(warning, file=sys.stderr, flush=True)
        missing = [name for name in self.shapes if not self._is_done(name)]
        if missing:
            progress.remove_bundles()
        done = len(self.shapes) - len(missing)
        with tqdm(total=len(self.shapes), initial=done, unit=self.PART) as bar:
            for name in missing:
                noisy = self.read(name)
                if name == missing[0]:
                    self._denoise(denoise, name, noisy)
                started = time.perf_counter()
                denoised = self._denoise(denoise, name, noisy)
                seconds = time.perf_counter() - started
                with progress.writing():
                    self.save(self._path(name), self.finish(denoised))
                progress.add(name, seconds)
                bar.update()
        pixels = {name: shape[0] * shape[1] for name, shape in self.shapes.items()}
        seconds = progress.seconds_per_megapixel(pixels)
        with progress.writing():
            bundles = self.bundle(self.load, seconds)
        progress.finish(
            parts=len(self.shapes),
            seconds_per_megapixel=seconds,
            submit=[str(path.relative_to(progress.out)) for path in bundles],
        )
        speed = "" if seconds is None else f", {seconds:.3f} s per megapixel"
        plural = "s" * (len(self.shapes) != 1)
        print(f"{len(self.shapes)} {self.PART}{plural} denoised{speed}. To be submitted:")
        for path in bundles:
            print(f"  {path}")
        return bundles

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Returns a noisy part."""

    def finish(self, denoised: np.ndarray) -> np.ndarray:
        """Returns what is to be saved of a denoised part."""
        return denoised

    @abc.abstractmethod
    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Writes a denoised part, atomically."""

    @abc.abstractmethod
    def load_file(self, path: Path) -> np.ndarray:
        """Reads what `save` wrote; raises a CbsnError if it is broken."""

    @abc.abstractmethod
    def bundle(self, load: Callable[[str], np.ndarray], seconds: float | None) -> list[Path]:
        """Writes what is to be submitted.

        Args:
            load: gives a denoised part by its name.
            seconds: per megapixel, if known.

        Returns:
            The files or folders written.
        """

    def load(self, name: str) -> np.ndarray:
        """Reads a denoised part.

        Raises:
            DataError: it is missing or broken.
        """
        try:
            part = self.load_file(self._path(name))
        except CbsnError as error:
            raise DataError(f"{error} Give --resume to make it again.") from error
        if reason := self._misfit(name, part):
            raise DataError(f"{self._path(name)} {reason}. Give --resume to make it again.")
        return part

    def _path(self, name: str) -> Path:
        return self.progress.parts / f"{name}{self.SUFFIX}"

    def _is_done(self, name: str) -> bool:
        try:
            self.load(name)
        except DataError:
            return False
        return True

    def _denoise(self, denoise: Denoise, name: str, noisy: np.ndarray) -> np.ndarray:
        part = f"{self.PART} {name}"
        try:
            denoised = denoise(noisy)
        except CbsnError as error:
            raise type(error)(f"{part}: {error}") from error
        except Exception:
            print(f"{part} failed:", file=sys.stderr)
            raise
        if reason := self._misfit(name, denoised):
            raise ImageError(f"{part}: the denoiser's result {reason}.")
        return denoised

    def _misfit(self, name: str, part: np.ndarray) -> str:
        """Says what is wrong with a denoised part, if anything."""
        if (part.shape, part.dtype) != (self.shapes[name], self.DTYPE):
            expected = f"{np.dtype(self.DTYPE)} {self.shapes[name]}"
            return f"is {part.dtype} {part.shape}, and should be {expected}"
        return "" if np.isfinite(part).all() else "has values that are not finite"


def _state(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
