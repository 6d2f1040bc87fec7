"""What the submissions have in common: parts are denoised one by one, and then bundled."""

import abc
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cbsn.errors import CbsnError, ConfigError, DataError, ImageError
from cbsn.files import expanded, remove_folder, tidy, write_json, write_text

RECORD = "submission.json"
SECONDS = "seconds.txt"

MEGAPIXEL = 1 << 20
"""Pixels of a megapixel, as SIDD's kit counts them."""


class Progress:
    """Keeps a submission's progress, so that a stopped one can go on.

    Args:
        out: the folder; it need not be there.
        parts: str, name of the sub-folder for the denoised blocks or crops.
        bundles: names, below `out`, of the files or folders to be submitted.
        resume: whether to go on with what is there.

    Raises:
        ConfigError: if `out` holds a submission and `resume` is False, or no record of how it was
            begun.
    """

    def __init__(self, out: Path, parts: str, bundles: tuple[str, ...], *, resume: bool):
        self.out = out
        self.parts = out / parts
        self._bundles = bundles
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out takes a folder, and this is a file. Received: --out {out}")
        found = [name for name in (RECORD, parts, *bundles) if (out / name).exists()]
        if found and not resume:
            raise ConfigError(
                f"{out} holds a submission already ({', '.join(found)}). Give --resume to go on "
                "with it, or another --out."
            )
        if found and RECORD not in found:
            raise ConfigError(
                f"{out} has no {RECORD}, so nobody knows how its {found[0]} was made. Give "
                "another --out."
            )

    def begin(self, record: dict[str, Any]) -> None:
        """Writes the record of a submission, or compares it with that of the one to go on with.

        What a killed process left half written is cleared away.

        Args:
            record: `benchmark`, `model` (its `path` and `sha256`), `settings` and `source` (its
                `path` and `files`). The two paths may differ from the earlier ones.

        Raises:
            ConfigError: if the rest differs, or the folder cannot be written.
        """
        path = self.out / RECORD
        if path.exists():
            try:
                changes = _differences(json.loads(path.read_text(encoding="utf-8")), record)
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                raise ConfigError(
                    f"{path} cannot be read, so nobody knows how this submission was begun. Give "
                    f"another --out. ({error!r})"
                ) from error
            if changes:
                raise ConfigError(
                    f"{self.out} was begun otherwise: {', '.join(changes)}. Give what was given "
                    "then, or another --out."
                )
        self._record = {**record, "complete": False}
        with self.writing():
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(path, self._record)
            self.parts.mkdir(exist_ok=True)
            for folder in {self.parts, *((self.out / bundle).parent for bundle in self._bundles)}:
                if folder.is_dir():
                    tidy(folder)
            self._seconds = _read_seconds(self.out / SECONDS)
            write_text(self.out / SECONDS, "".join(_line(*item) for item in self._seconds.items()))

    def remove_bundles(self) -> None:
        """Takes an earlier bundle away, before the parts that it was made of are replaced."""
        with self.writing():
            for path in (self.out / bundle for bundle in self._bundles):
                if path.is_dir():
                    remove_folder(path)
                else:
                    path.unlink(missing_ok=True)

    def add(self, name: str, seconds: float) -> None:
        """Notes how long a part took."""
        self._seconds[name] = seconds
        with self.writing(), (self.out / SECONDS).open("a", encoding="utf-8") as file:
            file.write(_line(name, seconds))

    def seconds_per_megapixel(self, pixels: Mapping[str, int]) -> float | None:
        """The mean over all parts whose time is known; None if there is none.

        Args:
            pixels: of each part, by its name.
        """
        known = {name: seconds for name, seconds in self._seconds.items() if name in pixels}
        if not known:
            return None
        return sum(known.values()) * MEGAPIXEL / sum(pixels[name] for name in known)

    def finish(self, **facts: Any) -> None:
        """Says in the record that the submission is complete, and these facts of it."""
        with self.writing():
            write_json(self.out / RECORD, {**self._record, "complete": True, **facts})

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an OSError of the block into a ConfigError that says how to go on."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.out} cannot be written: {error.strerror or error}. What is done is kept: "
                "make room there and give --resume, or give another --out."
            ) from error


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Says of each difference what was and what is."""
    if before["benchmark"] != now["benchmark"]:
        return [f"benchmark {before['benchmark']} (now {now['benchmark']})"]
    changes = []
    if before["model"]["sha256"] != now["model"]["sha256"]:
        was, this = (_describe(each["model"]) for each in (before, now))
        changes.append(f"model {was} (now {this})")
    for key in sorted({*before["settings"], *now["settings"]}):
        was, this = before["settings"].get(key), now["settings"].get(key)
        if was != this:
            changes.append(f"{key} {was} (now {this})")
    files, files_now = before["source"]["files"], now["source"]["files"]
    if other := [name for name in {**files, **files_now} if files.get(name) != files_now.get(name)]:
        changes.append(f"source {before['source']['path']}, whose {other[0]} was another file")
    return changes


def _describe(model: dict[str, str]) -> str:
    return f"{model['path']}, SHA-256 {model['sha256'][:12]}"


def _line(name: str, seconds: float) -> str:
    return f"{name} {seconds}\n"


def _read_seconds(path: Path) -> dict[str, float]:
    """Reads what `Progress.add` wrote; a line that a killed process left unfinished is dropped."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    seconds = {}
    for line in lines:
        # The number of a line without its end may have lost digits.
        with contextlib.suppress(ValueError):
            name, number = line.removesuffix("\n").split(" ")
            if line.endswith("\n"):
                seconds[name] = float(number)
    return seconds


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
