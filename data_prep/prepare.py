"""Raw pictures to a data set: what is done is kept, the rest is converted, chunk by chunk."""

import contextlib
import dataclasses
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from tqdm import tqdm

from cbsn.data.manifest import MANIFEST_NAME, Manifest, Source
from cbsn.errors import ConfigError, DataError, check_number
from cbsn.files import is_folder_in_use
from cbsn.value_range import check_white
from data_prep import dnd, folder, sidd, sidd_validation
from data_prep.patches import is_too_small
from data_prep.processes import run_chunks
from data_prep.raw import RawData
from data_prep.report import Report, describe
from data_prep.shards import Chunk, ChunkResult, shard_files, write_chunk

DATASET_FOLDER = Path("dataset")
"""Where raw data sets are looked for and prepared ones written, unless told otherwise."""

LOCK_NAME = ".preparing.lock"
"""A file in a prepared folder, held by the one process that writes there."""

_SEED = 0

CHUNK_FILES = 16
CHUNK_BYTES = 2**29
"""A chunk takes this many files, or fewer that are this large together."""

_MOST_WORKERS = 1024
_LONGEST_NAME = 200
"""Bytes of a picture folder's name that its data set is called by."""


def prepare(
    dataset: str | Path,
    *,
    source: str | Path = DATASET_FOLDER,
    out: str | Path | None = None,
    patch_size: int = 256,
    stride: int = 200,
    offset: int | None = None,
    white: float | None = None,
    workers: int | None = None,
    force: bool = False,
) -> Report:
    """Cuts the pictures of a data set into patches and writes these as sharded TFRecord files.

    Running it again keeps the chunks whose files are unchanged and converts only the rest: new
    and changed files, those that failed, and the neighbours of removed ones. Interrupted, it
    goes on where it stopped. What a training is reading stays until it is done. `SIDD_VAL` gives
    folders of PNG pairs instead of records, and of the arguments only `source`, `out` and `force`
    matter then.

    Args:
        dataset: `SIDD`, `DND` or `SIDD_VAL` in any case, or a folder, glob or picture file.
        source: folder that holds SIDD or DND.
        out: folder to write to, made with its parents. Default: `dataset/` and the data set's
            name and patch size, such as `dataset/SIDD256` (`dataset/SIDD_VAL` for pairs); if
            other pictures of that name are there, with a number that is the pictures' own.
        patch_size: height and width of a patch, in pixels. Smaller pictures are reflect-padded;
            to more than 256 pixels only those that are half as large at least.
        stride: distance of neighbouring patches, in pixels.
        offset: distance of the first patch from the top and left edge, in pixels. Default: 10
            for SIDD, 0 for all others.
        white: what white is in the pictures of a folder, as for `read_picture`. Default: as each
            of them shows it.
        workers: number of processes; a picture that ends one of them is named, and the others go
            on. A script that gives it needs the usual `if __name__ == "__main__":`. Default: none
            but this one.
        force: convert everything, also into a folder that holds another data set.

    Returns:
        The folder written to, a summary, and the files that could not be converted.

    Raises:
        ConfigError: an argument is out of range, or `out` holds another data set.
        DataError: there are no pictures, or `out` cannot be written.
    """
    _check(dataset, patch_size, stride, offset, white, workers)
    try:
        if str(dataset).upper() == "SIDD_VAL":
            out = Path(out or DATASET_FOLDER / "SIDD_VAL")
            return Report(out, sidd_validation.write_pairs(source, out, force=force))
        raw = _find(dataset, source, white)
        _check_sides(raw, patch_size)
        given = out
        if out and os.path.realpath(out) == os.path.realpath(raw.root):
            raise ConfigError(
                "The pictures' own folder cannot hold their data set: give another one with "
                f"prepare_dataset.py --out. Received: {out}"
            )
        out = Path(out or _default_out(dataset, raw, patch_size))
        out.mkdir(parents=True, exist_ok=True)
        wanted = Manifest(
            kind=raw.kind,
            root=str(raw.root),
            patch_size=patch_size,
            stride=stride,
            offset=raw.offset if offset is None else offset,
            dtype=raw.dtype,
            white=white,
        )
        # What makes the same data set anew, whoever calls this.
        flags = {"--dataset": dataset, "--out": given, "--offset": offset, "--white": white}
        for flag, value, default in (
            ("--source", source, DATASET_FOLDER),
            ("--patchsize", patch_size, 256),
            ("--stride", stride, 200),
        ):
            flags[flag] = value if value != default else None
        with _alone(out):
            done = wanted if force else _keep_done(wanted, raw, out, _command(flags))
            manifest, notes = _convert_rest(done, raw, out, workers)
    except OSError as error:
        raise DataError(f"The data set cannot be prepared: {error}") from error
    return describe(manifest, len(raw.files), skipped=len(done.sources), out=out, notes=notes)


def prepared_folder(dataset: str | Path, patch_size: int = 256) -> Path:
    """Says where `prepare` puts the patches of pictures, unless told otherwise.

    Args:
        dataset: a folder or glob of pictures.
        patch_size: as given to `prepare`.

    Raises:
        DataError: there are no pictures.
    """
    return _default_out(dataset, _find(dataset, DATASET_FOLDER, None), patch_size)


def _check(
    dataset: str | Path,
    patch_size: int,
    stride: int,
    offset: int | None,
    white: float | None,
    workers: int | None,
) -> None:
    check_number("--patchsize", patch_size, 1)
    check_number("--stride", stride, 1)
    check_number("--offset", offset or 0, 0)
    check_number("--workers", 1 if workers is None else workers, 1, _MOST_WORKERS)
    check_white(white)
    if white is not None and str(dataset).upper() in ("SIDD", "DND", "SIDD_VAL"):
        raise ConfigError(
            f"What white is in {str(dataset).upper()} is known: omit --white. "
            f"Received: --white {white:g}"
        )


def _check_sides(raw: RawData, patch_size: int) -> None:
    """Refuses patches that are too large for all pictures, before any of these is decoded."""
    largest = 0
    for path in raw.files:
        with contextlib.suppress(Exception):  # a broken file is named when it is read
            largest = max(largest, raw.longest_side(path))
        if largest and not is_too_small(largest, patch_size):
            return
    if largest and is_too_small(largest, patch_size):
        raise ConfigError(
            f"--patchsize must be at most twice as large as the pictures; the largest one has "
            f"{largest} pixels on its longer side. Received: --patchsize {patch_size}"
        )


def _command(flags: Mapping[str, Any]) -> str:
    """The command line that makes a data set anew, for a shell."""
    given = [part for flag, value in flags.items() if value is not None for part in (flag, value)]
    return shlex.join(["python", "prepare_dataset.py", *map(str, given), "--force"])


def _default_out(dataset: str | Path, raw: RawData, patch_size: int) -> Path:
    if raw.kind != "folder":
        return DATASET_FOLDER / f"{raw.kind}{patch_size}"
    name = os.fsencode(raw.root.resolve().name)[:_LONGEST_NAME]
    plain = DATASET_FOLDER / f"{os.fsdecode(name)}{patch_size}"
    place = os.path.realpath(Path(dataset).expanduser())
    number = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    own = plain.with_name(f"{plain.name}-{number}")
    if (own / MANIFEST_NAME).exists():
        return own
    try:
        is_free = not (plain / MANIFEST_NAME).exists() or _is_of(Manifest.read(plain), raw)
    except DataError:
        is_free = True  # a damaged manifest: whoever reads it next says so, unless it is replaced
    return plain if is_free else own


def _find(dataset: str | Path, source: str | Path, white: float | None) -> RawData:
    kinds = {"SIDD": sidd, "DND": dnd}
    kind = kinds.get(str(dataset).upper())
    return kind.find(source) if kind else folder.find(dataset, white)


def _is_of(old: Manifest, raw: RawData) -> bool:
    """Whether a data set was made of these pictures, some of which may be new, changed or gone.

    The folder may have been moved. A copy of it is another one, as are other pictures in it.
    """
    if not old.sources:
        return True
    if old.kind != raw.kind:
        return False
    present = {raw.name(path): path for path in raw.files}
    if not os.path.exists(old.root):  # noqa: PTH110, which may not look there
        return any(_is_unchanged(source, present) for source in old.sources)
    if not os.path.samefile(old.root, raw.root):  # noqa: PTH121
        return False
    names = [entry.path for entry in (*old.sources, *old.failed) if entry.path not in present]
    return not any(os.path.exists(Path(old.root, name)) for name in names)  # noqa: PTH110


def _is_unchanged(source: Source, present: Mapping[str, Path]) -> bool:
    with contextlib.suppress(KeyError, FileNotFoundError):
        stat = present[source.path].stat()
        return (stat.st_size, stat.st_mtime_ns) == (source.size, source.mtime_ns)
    return False


def _keep_done(wanted: Manifest, raw: RawData, out: Path, anew: str) -> Manifest:
    """The data set in `out` without the chunks that are incomplete or whose files changed."""
    if not (out / MANIFEST_NAME).exists():
        return wanted
    old = Manifest.read(out)
    differences = [
        f"{name} {getattr(old, name)} (now {getattr(wanted, name)})"
        for name in ("kind", "patch_size", "stride", "offset", "white")
        if getattr(old, name) != getattr(wanted, name)
    ]
    if not _is_of(old, raw):
        differences.append(f"the pictures of {old.root} (now {wanted.root})")
        if old.root == wanted.root:
            differences[-1] = f"other pictures of {old.root}"
    if differences and (old.sources or old.shards):
        raise ConfigError(
            f"{out} holds a data set prepared with {', '.join(differences)}. Replace it with "
            f"`{anew}`, or choose another folder with the --out of prepare_dataset.py."
        )
    if old.dtype != wanted.dtype:
        return wanted  # converting anew loses nothing, as all pictures are there
    present = {raw.name(path): path for path in raw.files}
    sizes = {path.name: path.stat().st_size for path in shard_files(out)}
    dropped = {s.chunk for s in old.shards if sizes.get(s.name) != s.bytes}
    for source in old.sources:
        # Versions that did not tell took 16 bits and floats to use their whole range.
        is_known = source.dtype or old.dtype == "uint8"
        if not (is_known and _is_unchanged(source, present)):
            dropped.add(source.chunk)
    return dataclasses.replace(
        wanted,
        sources=tuple(s for s in old.sources if s.chunk not in dropped),
        shards=tuple(s for s in old.shards if s.chunk not in dropped),
    )


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Waits until no other process prepares the same folder, and keeps others from it."""
    with contextlib.ExitStack() as stack:
        # Where files cannot be locked, or not be written, what follows says so if it matters.
        with contextlib.suppress(OSError, NotImplementedError):
            lock = filelock.FileLock(out / LOCK_NAME)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                print(f"Another process prepares {out}; waiting for it.", file=sys.stderr)
                lock.acquire()
            stack.callback(lock.release)
        yield


def _convert_rest(
    done: Manifest, raw: RawData, out: Path, workers: int | None
) -> tuple[Manifest, list[str]]:
    """Converts what is not done; the manifest in `out` follows, and at last old shards go."""
    names = {source.path for source in done.sources}
    rest = dataclasses.replace(raw, files=tuple(p for p in raw.files if raw.name(p) not in names))
    chunks = [
        Chunk(number, part, out, done.patch_size, done.stride, done.offset)
        for number, part in enumerate(_split(rest), start=_next_number(out))
    ]
    manifest, next_save = done, 0.0
    progress = tqdm(total=len(raw.files), initial=len(names), desc="Preparing", unit="image")
    results = run_chunks(chunks, workers) if workers else (write_chunk(each) for each in chunks)
    with progress, contextlib.closing(results):
        try:
            for result in results:
                manifest = _add(manifest, result)
                progress.update(len(result.sources) + len(result.failed))
                # The manifest of a large data set takes a while: a tenth of the time at most.
                started = time.perf_counter()
                if started >= next_save:
                    manifest.write(out)
                    next_save = started + 10 * (time.perf_counter() - started)
        finally:
            _write_changed(manifest, out)
    listed = {shard.name for shard in manifest.shards}
    surplus = [path for path in shard_files(out) if path.name not in listed]
    # The manifest is written: whoever opens the data set from now on has no use for them.
    if surplus and is_folder_in_use(out):
        return manifest, [
            f"{len(surplus)} files of the data set that was there before stay, as a training may "
            "be reading them. The next preparation deletes them."
        ]
    for path in surplus:
        path.unlink()
    return manifest, []


def _write_changed(manifest: Manifest, out: Path) -> None:
    """Writes a manifest where it is another one than before: not where all may only be read."""
    with contextlib.suppress(DataError):
        if Manifest.read(out) == manifest:
            return
    manifest.write(out)


def _split(raw: RawData) -> Iterator[RawData]:
    """Groups the files, shuffled, so that the shards of a chunk mix pictures from everywhere."""
    part, size = [], 0
    for index in np.random.default_rng(_SEED).permutation(len(raw.files)):
        path = raw.files[index]
        part.append(path)
        with contextlib.suppress(OSError):  # it has gone meanwhile; that is noticed again
            size += path.stat().st_size
        if len(part) == CHUNK_FILES or size >= CHUNK_BYTES:
            yield dataclasses.replace(raw, files=tuple(part))
            part, size = [], 0
    if part:
        yield dataclasses.replace(raw, files=tuple(part))


def _next_number(out: Path) -> int:
    """A chunk number above all in the folder: no shard in use is ever overwritten."""
    return max(shard_files(out).values(), default=-1) + 1


def _add(manifest: Manifest, result: ChunkResult) -> Manifest:
    # Sorted, as chunks end in any order, and training with one seed counts on one order.
    return dataclasses.replace(
        manifest,
        sources=tuple(sorted(manifest.sources + result.sources, key=lambda s: s.path)),
        shards=tuple(sorted(manifest.shards + result.shards, key=lambda s: s.name)),
        failed=tuple(sorted(manifest.failed + result.failed, key=lambda f: f.path)),
    )
