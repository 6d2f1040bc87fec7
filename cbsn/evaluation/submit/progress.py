"""The folder of a submission: what was begun there, what is done, and how long it took."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cbsn.errors import ConfigError
from cbsn.files import remove_folder, tidy, write_json, write_text

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
