"""Raw pictures to a data set: what is done is kept, the rest is converted, chunk by chunk."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cbsn.data.manifest import MANIFEST_NAME, Failure, Manifest
from cbsn.errors import ConfigError, DataError
from data_prep import dnd, folder, sidd, sidd_validation
from data_prep.raw import RawData
from data_prep.shards import Chunk, ChunkResult, shard_files, write_chunk

DATASET_FOLDER = Path("dataset")
"""Where raw data sets are looked for and prepared ones written, unless told otherwise."""

_SEED = 0

CHUNK_FILES = 16
CHUNK_BYTES = 2**29
"""A chunk takes this many files, or fewer that are this large together."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What to tell the user at the end: one line, and the files that could not be converted."""

    out: Path
    summary: str
    failed: tuple[Failure, ...] = ()

    def __str__(self) -> str:
        lines = [f"  {failure.path}: {failure.reason}" for failure in self.failed]
        return "\n".join([self.summary, *(["Not converted:", *lines] if lines else [])])


def prepare(
    dataset: str | Path,
    *,
    source: str | Path = DATASET_FOLDER,
    out: str | Path | None = None,
    patch_size: int = 256,
    stride: int = 200,
    offset: int | None = None,
    workers: int = 1,
    force: bool = False,
) -> Report:
    """Cuts the pictures of a data set into patches and writes these as sharded TFRecord files.

    Running it again keeps the chunks whose files are unchanged and converts only the rest: new
    and changed files, those that failed, and the neighbours of removed ones. Interrupted, it
    goes on where it stopped. `SIDD_VAL` gives folders of PNG pairs instead of records, and of
    the arguments only `source`, `out` and `force` matter then.

    Args:
        dataset: `SIDD`, `DND` or `SIDD_VAL` in any case, or a folder, glob or picture file.
        source: folder that holds SIDD or DND.
        out: folder to write to, made with its parents. Default: `dataset/` and the data set's
            name and patch size, such as `dataset/SIDD256` (`dataset/SIDD_VAL` for pairs).
        patch_size: height and width of a patch, in pixels. Smaller pictures are reflect-padded.
        stride: distance of neighbouring patches, in pixels.
        offset: distance of the first patch from the top and left edge, in pixels. Default: 10
            for SIDD, 0 for all others.
        workers: number of processes. With more than one, a script that calls this needs the
            usual `if __name__ == "__main__":`.
        force: convert everything, also into a folder that holds another data set.

    Returns:
        The folder written to, a summary, and the files that could not be converted.

    Raises:
        ConfigError: an argument is out of range, or `out` holds another data set.
        DataError: there are no pictures, or `out` cannot be written.
    """
    bounds = {"--patchsize": (patch_size, 1), "--stride": (stride, 1), "--workers": (workers, 1)}
    for flag, (value, least) in {**bounds, "--offset": (offset or 0, 0)}.items():
        if value < least:
            raise ConfigError(f"{flag} must be at least {least}. Received: {value}")
    try:
        if str(dataset).upper() == "SIDD_VAL":
            out = Path(out or DATASET_FOLDER / "SIDD_VAL")
            return Report(out, sidd_validation.write_pairs(source, out, force=force))
        raw = _find(dataset, source)
        out = Path(out or _default_out(raw, patch_size))
        out.mkdir(parents=True, exist_ok=True)
        wanted = Manifest(
            kind=raw.kind,
            root=str(raw.root),
            patch_size=patch_size,
            stride=stride,
            offset=raw.offset if offset is None else offset,
            dtype=raw.dtype,
        )
        done = wanted if force else _keep_done(wanted, raw, out)
        manifest = _convert_rest(done, raw, out, workers)
    except OSError as error:
        raise DataError(f"The data set cannot be prepared: {error}") from error
    return _report(manifest, raw, skipped=len(done.sources), out=out)


def prepared_folder(dataset: str | Path, patch_size: int = 256) -> Path:
    """Says where `prepare` puts the patches of pictures, unless told otherwise.

    Args:
        dataset: a folder or glob of pictures.
        patch_size: as given to `prepare`.

    Raises:
        DataError: there are no pictures.
    """
    return _default_out(_find(dataset, DATASET_FOLDER), patch_size)


def _default_out(raw: RawData, patch_size: int) -> Path:
    name = raw.root.resolve().name if raw.kind == "folder" else raw.kind
    return DATASET_FOLDER / f"{name}{patch_size}"


def _find(dataset: str | Path, source: str | Path) -> RawData:
    kinds = {"SIDD": sidd, "DND": dnd}
    kind = kinds.get(str(dataset).upper())
    return kind.find(source) if kind else folder.find(dataset)


def _keep_done(wanted: Manifest, raw: RawData, out: Path) -> Manifest:
    """The data set in `out` without the chunks that are incomplete or whose files changed."""
    if not (out / MANIFEST_NAME).exists():
        return wanted
    old = Manifest.read(out)
    names = ("kind", "patch_size", "stride", "offset", "dtype")
    differences = [
        f"{name} {getattr(old, name)} (now {getattr(wanted, name)})"
        for name in names
        if getattr(old, name) != getattr(wanted, name)
    ]
    present = {raw.name(path): path for path in raw.files}
    if old.root != wanted.root and present.keys().isdisjoint(s.path for s in old.sources):
        differences.append(f"the pictures of {old.root} (now {wanted.root})")
    if differences:
        raise ConfigError(
            f"{out} holds a data set prepared with {', '.join(differences)}. "
            "Choose another folder with --out, or replace it with --force."
        )

    def is_unchanged(name: str, size: int, mtime_ns: int) -> bool:
        with contextlib.suppress(KeyError, FileNotFoundError):
            stat = present[name].stat()
            return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
        return False

    sizes = {path.name: path.stat().st_size for path in shard_files(out)}
    dropped = {s.chunk for s in old.shards if sizes.get(s.name) != s.bytes}
    dropped |= {s.chunk for s in old.sources if not is_unchanged(s.path, s.size, s.mtime_ns)}
    return dataclasses.replace(
        wanted,
        sources=tuple(s for s in old.sources if s.chunk not in dropped),
        shards=tuple(s for s in old.shards if s.chunk not in dropped),
    )


def _convert_rest(done: Manifest, raw: RawData, out: Path, workers: int) -> Manifest:
    """Converts what is not done; the manifest in `out` follows, and at last old shards go."""
    names = {source.path for source in done.sources}
    rest = dataclasses.replace(raw, files=tuple(p for p in raw.files if raw.name(p) not in names))
    chunks = [
        Chunk(number, part, out, done.patch_size, done.stride, done.offset)
        for number, part in enumerate(_split(rest), start=_next_number(out))
    ]
    manifest, next_save = done, 0.0
    progress = tqdm(total=len(raw.files), initial=len(names), desc="Preparing", unit="image")
    with progress, contextlib.closing(_run(chunks, workers)) as results:
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
            manifest.write(out)
    listed = {shard.name for shard in manifest.shards}
    for path in shard_files(out):
        if path.name not in listed:
            path.unlink()
    return manifest


def _split(raw: RawData) -> Iterator[RawData]:
    """Groups the files, shuffled, so that the shards of a chunk mix pictures from everywhere."""
    part, size = [], 0
    for index in np.random.default_rng(_SEED).permutation(len(raw.files)):
        path = raw.files[index]
        part.append(path)
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


def _run(chunks: list[Chunk], workers: int) -> Iterator[ChunkResult]:
    if min(workers, len(chunks)) <= 1:
        yield from map(write_chunk, chunks)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)),
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy held locks
        initializer=_end_with_parent,
    )
    try:
        for future in as_completed([pool.submit(write_chunk, chunk) for chunk in chunks]):
            yield future.result()
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    except BrokenProcessPool as error:
        raise DataError(
            "A process ended before its work was done, often for lack of memory. Run the same "
            "command again with fewer --workers; what is done is kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leaves Ctrl-C to the parent, and lets no worker outlive one that was killed."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _report(manifest: Manifest, raw: RawData, skipped: int, out: Path) -> Report:
    size = manifest.patch_size
    patches = sum(source.patches for source in manifest.sources)
    padded = sum(source.padded for source in manifest.sources)
    return Report(
        out,
        f"{out}: {patches} patches of {size}x{size} {manifest.dtype} from "
        f"{len(manifest.sources)} of {len(raw.files)} images (shards: {len(manifest.shards)}, "
        f"images smaller than a patch, reflect-padded: {padded}, already done: {skipped}, "
        f"failed: {len(manifest.failed)}).",
        manifest.failed,
    )
