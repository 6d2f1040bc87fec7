"""What all submissions share: parts are denoised one by one, then bundled."""

import abc
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import CbsnError, ConfigError, DataError, ImageError
from cbsn.files import expanded, remove_folder, tidy, write_json, write_text
from cbsn.inference.outputs import changed_settings
from cbsn.progress import progress_bar, say, say_fault

_RECORD = "submission.json"
_SECONDS = "seconds.txt"

_MEGAPIXEL = 1 << 20  # pixels, as SIDD's kit counts them


class Submission(abc.ABC):
    """A submission to a benchmark, made from its noisy pictures in a folder.

    The folder keeps a record of how the submission was started (`submission.json`), the seconds
    that each part took, and the denoised parts, so that an interrupted submission can be resumed.
    """

    BENCHMARK: str
    PART: str  # what a part is called; the parts' folder has this name plus an s
    SUFFIX: str  # of a part's file
    DTYPE: type  # of the parts, noisy and denoised
    BUNDLES: tuple[str, ...]  # paths below `out` of everything that may be submitted

    def __init__(
        self,
        files: Sequence[Path],  # of the benchmark; identified by their sizes and modification times
        shapes: Mapping[str, tuple[int, ...]],  # of the parts by name, in processing order
        warning: str,  # how the data differ from the real benchmark; empty if they do not
        settings: Mapping[str, Any],  # must be the same on `--resume`
        out: str | Path,
        resume: bool,  # whether to continue a submission in `out`; otherwise one there is an error
    ):
        self.shapes = shapes
        self.out = out = expanded(out)
        self.parts = out / f"{self.PART}s"
        self._warning = warning
        self._settings = settings
        states = ((path.name, path.stat()) for path in files)
        facts = {name: {"size": s.st_size, "mtime_ns": s.st_mtime_ns} for name, s in states}
        self._source = {"path": str(files[0].parent), "files": facts}
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out must be a folder, not a file. Received: --out {out}")
        names = (_RECORD, self.parts.name, *self.BUNDLES)
        found = [name for name in names if (out / name).exists()]
        if found and not resume:
            raise ConfigError(
                f"{out} already holds a submission ({', '.join(found)}). Use --resume to continue "
                "it, or another --out."
            )
        if found and _RECORD not in found:
            raise ConfigError(
                f"{out} has no {_RECORD}, so it is unknown how its {found[0]} was made. Use "
                "another --out."
            )

    def run(
        self,
        denoise: Callable[[np.ndarray], np.ndarray],
        *,
        settings: Mapping[str, Any] | None = None,
        model: Mapping[str, str] | None = None,
    ) -> list[Path]:
        """Denoises the missing parts, then writes the files to submit.

        Args:
            denoise: called with one part at a time, [H, W, 3] of `DTYPE`.
            settings: of `denoise`, JSON values by name; must be the same on `--resume`.
            model: its `path` and `sha256`; the path may differ on `--resume`.

        Returns:
            The files or folders to submit.
        """
        record: dict[str, Any] = {
            "benchmark": self.BENCHMARK,
            "model": model or {"path": "", "sha256": ""},
            "settings": {**self._settings, **(settings or {})},
            "source": self._source,
        }
        seconds = self._begin(record)
        if self._warning:
            warning = f"warning: {self._warning}: the site will not accept this submission"
            say_fault(warning)
        missing = []
        for name in self.shapes:
            try:
                self.load(name)
            except DataError:
                missing.append(name)
        if missing:
            with self._writing():  # the bundles hold parts that are about to be replaced
                for path in (self.out / bundle for bundle in self.BUNDLES):
                    if path.is_dir():
                        remove_folder(path)
                    else:
                        path.unlink(missing_ok=True)
        done = len(self.shapes) - len(missing)
        with progress_bar(total=len(self.shapes), initial=done, unit=self.PART) as bar:
            for name in missing:
                noisy = self.read(name)
                if name == missing[0]:
                    self._denoise(denoise, name, noisy)  # not timed, as it builds graphs
                started = time.perf_counter()
                denoised = self._denoise(denoise, name, noisy)
                seconds[name] = time.perf_counter() - started
                with self._writing():
                    self.save(self._path(name), denoised)
                    with (self.out / _SECONDS).open("a", encoding="utf-8") as file:
                        file.write(f"{name} {seconds[name]}\n")
                bar.update()
        known = [name for name in seconds if name in self.shapes]
        pixels = sum(self.shapes[name][0] * self.shapes[name][1] for name in known)
        mean = sum(seconds[name] for name in known) * _MEGAPIXEL / pixels if known else None
        with self._writing():
            bundles = self.bundle(mean)
            record |= {
                "complete": True,
                "parts": len(self.shapes),
                "seconds_per_megapixel": mean,
                "submit": [str(path.relative_to(self.out)) for path in bundles],
            }
            write_json(self.out / _RECORD, record)
        speed = "" if mean is None else f", {mean:.3f} s per megapixel"
        plural = "s" * (len(self.shapes) != 1)
        say(f"{len(self.shapes)} {self.PART}{plural} denoised{speed}. To submit:")
        say("\n".join(f"  {path}" for path in bundles))
        return bundles

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Returns a noisy part."""

    @abc.abstractmethod
    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Writes a denoised part, atomically."""

    @abc.abstractmethod
    def load_file(self, path: Path) -> np.ndarray:
        """Reads what `save` wrote; raises a CbsnError if it is broken."""

    @abc.abstractmethod
    def bundle(self, seconds: float | None) -> list[Path]:
        """Writes the files or folders to submit; `seconds` are per megapixel, None if unknown."""

    def load(self, name: str) -> np.ndarray:
        """Reads a denoised part; raises DataError if it is missing or broken."""
        try:
            part = self.load_file(self._path(name))
        except CbsnError as error:
            raise DataError(f"{error} Use --resume to make it again.") from error
        if reason := self._misfit(name, part):
            raise DataError(f"{self._path(name)} {reason}. Use --resume to make it again.")
        return part

    def _begin(self, record: dict[str, Any]) -> dict[str, float]:
        """Prepares the folder and returns the seconds of its parts; an earlier record must agree.

        Removes half-written files that a killed process left.
        """
        path = self.out / _RECORD
        if path.exists():
            try:
                changes = _differences(json.loads(path.read_text("utf-8")), record)
            # Also for JSON nested too deeply, and for text that is not UTF-8 (a ValueError).
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
                raise ConfigError(
                    f"{path} cannot be read, so it is unknown how this submission was started. Use "
                    f"another --out. ({e!r})"
                ) from e
            if changes:
                raise ConfigError(
                    f"{self.out} was started differently: {', '.join(changes)}. Use the earlier "
                    "settings, or another --out."
                )
        with self._writing():
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(path, {**record, "complete": False})
            self.parts.mkdir(exist_ok=True)
            for folder in {self.parts, *((self.out / bundle).parent for bundle in self.BUNDLES)}:
                if folder.is_dir():
                    tidy(folder)
            seconds = _read_seconds(self.out / _SECONDS)
            write_text(self.out / _SECONDS, "".join(f"{k} {v}\n" for k, v in seconds.items()))
        return seconds

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError in the block into a ConfigError that says how to go on."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.out} cannot be written: {error.strerror or error}. Finished parts are "
                "kept: free some space and use --resume, or use another --out."
            ) from error

    def _path(self, name: str) -> Path:
        return self.parts / f"{name}{self.SUFFIX}"

    def _denoise(
        self, denoise: Callable[[np.ndarray], np.ndarray], name: str, noisy: np.ndarray
    ) -> np.ndarray:
        part = f"{self.PART} {name}"
        try:
            denoised = denoise(noisy)
        except CbsnError as error:
            raise type(error)(f"{part}: {error}") from error
        except Exception:
            say_fault(f"{part} failed:")
            raise
        if reason := self._misfit(name, denoised):
            raise ImageError(f"{part}: the denoiser's result {reason}.")
        return denoised

    def _misfit(self, name: str, part: np.ndarray) -> str:
        """Returns what is wrong with a denoised part, or an empty string."""
        if (part.shape, part.dtype) != (self.shapes[name], self.DTYPE):
            expected = f"{np.dtype(self.DTYPE)} {self.shapes[name]}"
            return f"is {part.dtype} {part.shape}, expected {expected}"
        return "" if np.isfinite(part).all() else "has values that are not finite"


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describes each difference between two records: the values before and now."""
    if before["benchmark"] != now["benchmark"]:
        return [f"benchmark {before['benchmark']} (now {now['benchmark']})"]
    changes = changed_settings(
        {"model": before["model"], **before["settings"]}, {"model": now["model"], **now["settings"]}
    )
    files, files_now = before["source"]["files"], now["source"]["files"]
    if other := [name for name in {**files, **files_now} if files.get(name) != files_now.get(name)]:
        changes.append(f"source {before['source']['path']}, where {other[0]} was a different file")
    return changes


def _read_seconds(path: Path) -> dict[str, float]:
    """Reads the seconds of the parts; drops a line that a killed process left unfinished."""
    seconds = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n")[:-1]:  # without its line break, the last number may lack digits
        with contextlib.suppress(ValueError):
            name, number = line.split(" ")
            seconds[name] = float(number)
    return seconds
