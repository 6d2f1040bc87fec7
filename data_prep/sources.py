"""Finds the pictures of raw data sets, and writes SIDD's validation blocks as PNG pairs."""

import dataclasses
import fnmatch
import glob
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cbsn.data.benchmark_files import DND_FOLDERS, block_places, open_dnd, read_blocks
from cbsn.data.manifest import Source
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.files import atomic_path, write_json
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_header, read_picture, to_rgb
from cbsn.noise.repair import parse_repairs, repair_picture
from cbsn.progress import progress_bar
from cbsn.value_range import ValueRange, to_unit
from data_prep.cutting import Grid, cut, padded, uncovered


@dataclasses.dataclass(frozen=True)
class RawData:
    """The picture files of a raw data set, and how to read them."""

    kind: str  # `SIDD`, `DND` or `folder`
    root: Path  # the folder that holds the files; the manifest names them relative to it
    files: tuple[Path, ...]
    dtype: str  # the widest among the pictures: `uint8`, `uint16` or `float32`
    offset: int = 0  # default distance of the first patch from the top and left edge, in pixels
    white: float | None = None  # value of white in the files, see `read_picture`
    channels: int = 3  # of a patch
    patch_depth: int = 1  # planes of a patch along Z, of stacks
    repair: str = ""  # what is repaired, see `cbsn.noise.repair.parse_repairs`

    def read(self, path: Path) -> tuple[np.ndarray, ValueRange]:
        """Reads a picture, repeats gray and drops alpha. Raises ImageError if it is broken.

        Returns [H, W, 3] over the whole range of its dtype, and the range of values in the file.
        """
        picture = read_picture(path, white=self.white)
        return to_rgb(picture), picture.range_in_file

    def patches(
        self, path: Path, grid: Grid, chunk: int, first: int
    ) -> Generator[np.ndarray, None, list[Source]]:
        """Yields the patches of a file, and returns its entries for the manifest.

        `first` is the number of its first patch in the chunk. Raises any error if it is broken.
        """
        size, mtime_ns = file_stat(path)
        stored, value_range = self.read(path)
        outliers = 0
        if repairs := parse_repairs(self.repair):
            stored = stored.copy()
            outliers = repair_picture(stored, repairs)
        image = convert(padded(stored, grid.size), self.dtype)
        count = 0
        for patch in cut(image, *grid):
            yield patch
            count += 1
        height, width = image.shape[:2]
        own_height, own_width = stored.shape[:2]
        return [
            Source(
                path=self.name(path),
                size=size,
                mtime_ns=mtime_ns,
                patches=count,
                padded=image.shape != stored.shape,
                chunk=chunk,
                first=first,
                dtype=str(stored.dtype),
                black=value_range.black,
                white=value_range.white,
                pixels=height * width,
                height=own_height,
                width=own_width,
                uncovered=uncovered(height, width, *grid),
                repaired=outliers,
            )
        ]

    def longest_side(self, path: Path) -> int:
        """Returns the larger of height and width, from the header; 0 or any error if broken."""
        return max(read_header(path)[:2])

    def name(self, path: Path) -> str:
        """Returns the name of one of `files` in the manifest."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def names(self) -> dict[str, Path]:
        """Returns all files by their names in the manifest."""
        return {self.name(path): path for path in self.files}


def convert(image: np.ndarray, dtype: str) -> np.ndarray:
    """Converts a picture to its data set's dtype. Raises ImageError if that would lose values."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageError("holds values that are not finite (NaN or infinity).")
    if image.dtype == dtype:
        return image
    if dtype == "float32" and image.dtype.kind == "u":
        return to_unit(image)
    if dtype == "uint16" and image.dtype == np.uint8:
        return image.astype(np.uint16) * 257
    raise ImageError(f"is a {image.dtype} picture in a data set of {dtype}.")


def file_stat(path: Path) -> tuple[int, int]:
    """Returns the size in bytes of a file or a folder, and its last change in ns since 1970."""
    status = path.stat()
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    inside = [Path(each.path).stat() for each in _files_in(path)]
    changes = [status.st_mtime_ns, *(each.st_mtime_ns for each in inside)]
    return sum(each.st_size for each in inside), max(changes)


def _files_in(folder: Path) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_in(Path(entry.path))
            else:
                yield entry


class _Dnd(RawData):
    """The MATLAB files of DND, and how to read them."""

    def read(self, path: Path) -> tuple[np.ndarray, ValueRange]:
        with open_dnd(path) as noisy:
            stored = noisy[()]
        return np.ascontiguousarray(stored.T, np.float32), ValueRange(0.0, 1.0)

    def longest_side(self, path: Path) -> int:
        with open_dnd(path) as noisy:
            return max(noisy.shape[1:])


def find_raw(
    dataset: str | Path,
    source: str | Path,
    white: float | None = None,
    find_others: Callable[[str | Path, Sequence[Path]], RawData | None] | None = None,
) -> RawData:
    """Finds at least one picture of a data set. For the arguments, see `prepare`.

    `find_others` is asked first whether the files found are other data than pictures.
    """
    find = {"SIDD": _find_sidd, "DND": _find_dnd}.get(str(dataset).upper())
    if find:
        return find(Path(source).absolute())
    files = [path.absolute() for path in find_images(dataset)]
    others = find_others(dataset, files) if find_others else None
    return others or _of_pictures(dataset, files, white)


def _find_sidd(source: Path) -> RawData:
    root = source / "SIDD_Medium_Srgb" / "Data"
    pictures = [path for path in root.glob("*/*") if path.suffix.upper() == ".PNG"]
    files = sorted(path for path in pictures if "NOISY" in path.name.upper())
    if not files:
        raise DataError(
            f"There is no {root / '*' / '*NOISY*.PNG'}. Download SIDD Medium (sRGB) from "
            "https://abdokamel.github.io/sidd and give its folder with --source."
        )
    return RawData("SIDD", root, tuple(files), "uint8", offset=10)


def _find_dnd(source: Path) -> RawData:
    folders = [source / name / "images_srgb" for name in DND_FOLDERS]
    for folder in folders:
        if files := sorted(folder.glob("*.mat")):
            return _Dnd("DND", folder, tuple(files), "float32")
    raise DataError(
        f"There is no *.mat file in {' or '.join(map(str, folders))}. Download DND from "
        "https://noise.visinf.tu-darmstadt.de and give its folder with --source."
    )


def _of_pictures(pattern: str | Path, files: Sequence[Path], white: float | None) -> RawData:
    # From the headers, because data sets may be too large to decode twice. A file that is broken or
    # has another dtype is reported when it is read.
    dtypes = {read_header(path).dtype for path in files}
    widest = next((dtype for dtype in ("float32", "uint16") if dtype in dtypes), "uint8")
    return RawData("folder", root_of(pattern, files), tuple(files), widest, white=white)


def root_of(pattern: str | Path, files: Sequence[Path]) -> Path:
    """Returns the folder that the files found by a folder, a glob or a name are named relative to.

    An OME-Zarr folder is a file here.
    """
    root = Path(pattern).expanduser().absolute()
    if not os.path.lexists(root):
        return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), root.parts))
    return root.parent if root in files or not root.is_dir() else root


# The folders to write, and the possible names of their source files.
_SIDES = {
    "noisy": ("ValidationNoisyBlocksSrgb.mat",),
    "clean": ("ValidationGtBlocksSrgb.mat", "ValidationGTBlocksSrgb.mat"),
}
_PAIRS_NAME = "pairs.json"  # what the pairs were made from, and the names of our files
_BLOCK_NAME = "[0-9][0-9][0-9][0-9]_[0-9][0-9].png"


def write_pairs(source: str | Path, out: str | Path, *, force: bool = False) -> str:
    """Writes block m of picture n as `OUT/noisy/NNNN_MM.png` and `OUT/clean/NNNN_MM.png`.

    `source` is the folder with the two `.mat` files of SIDD's validation data. Raises DataError if
    they cannot be used, and ConfigError if other files are where the pairs belong. With `force`,
    those of the same names are replaced. Without it, does nothing if the pairs in `out` are
    complete and made from these two files. Returns a sentence that says what was done.
    """
    source, out = Path(source), Path(out)
    paths = {side: _find(source, names) for side, names in _SIDES.items()}
    stats = {path.name: path.stat() for path in paths.values()}
    made_of = {n: {"size": s.st_size, "mtime_ns": s.st_mtime_ns} for n, s in stats.items()}
    before = _pairs_before(out)
    if not force:
        if before is None:
            _refuse_others(out)
        elif before.complete and before.sources == made_of and before.are_there(out):
            return f"{out}: {len(before.names)} pairs were already done."
    blocks = {side: read_blocks(path) for side, path in paths.items()}
    noisy, clean = blocks.values()
    if noisy.shape != clean.shape:
        raise DataError(
            f"{paths['noisy']} and {paths['clean']} do not belong together: their blocks have "
            f"the shapes {noisy.shape} and {clean.shape}. Download both again."
        )
    out.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.png" for name in block_places(noisy)]
    ours = {*names, *(before.names if before else ())}
    # So that an interrupted run leaves nothing that the next one takes for others' files.
    _Pairs(made_of, sorted(ours), complete=False).write(out)
    for side, values in blocks.items():
        _write_side(out / side, values)
        for name in ours.difference(names):  # a block of an earlier, larger set
            (out / side / name).unlink(missing_ok=True)
    _Pairs(made_of, names).write(out)
    return f"{out}: {len(names)} pairs of blocks, in the folders noisy and clean."


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The pairs in a folder, as `pairs.json` there describes them."""

    sources: dict  # size and last change of each source file, by its name
    names: list[str]  # of the files that are ours in each of the two folders
    complete: bool = True

    def write(self, out: Path) -> None:
        facts = {"pairs": len(self.names), "complete": self.complete, "sources": self.sources}
        write_json(out / _PAIRS_NAME, {**facts, "names": self.names})

    def are_there(self, out: Path) -> bool:
        return all((out / side / name).is_file() for side in _SIDES for name in self.names)


def _pairs_before(out: Path) -> _Pairs | None:
    """Returns what `pairs.json` says; None if there is none, or another program's."""
    try:
        state = json.loads((out / _PAIRS_NAME).read_text(encoding="utf-8"))
        # Earlier versions stored neither; their pairs are made again, and none is deleted.
        names, complete = state.get("names", []), state.get("complete", False)
        _ = state["pairs"]
        blocks = [name for name in names if fnmatch.fnmatchcase(name, _BLOCK_NAME)]
        return _Pairs(state["sources"], blocks, complete is True)
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None


def _refuse_others(out: Path) -> None:
    """Raises a ConfigError if there is anything that the pairs would replace or mix with."""
    state = [out / _PAIRS_NAME] if os.path.lexists(out / _PAIRS_NAME) else []
    others = [*state, *(path for side in _SIDES for path in sorted((out / side).glob("[!.]*")))]
    if others:
        raise ConfigError(
            f"{others[0]} is no file of cbsn prepare, which writes pairs there. Choose another "
            "folder with --out, or replace files of the same names with --force. "
            f"Received: --out {out}"
        )


def _find(source: Path, names: tuple[str, ...]) -> Path:
    paths = [source / name for name in names]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"There is no {' or '.join(map(str, paths))}. Download SIDD's validation blocks from "
        "https://abdokamel.github.io/sidd and give their folder with --source."
    )


def _write_side(folder: Path, blocks: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    places = {f"{name}.png": place for name, place in block_places(blocks).items()}
    for name, place in progress_bar(places.items(), desc=f"Writing {folder.name}", unit="block"):
        with atomic_path(folder / name) as temporary:
            Image.fromarray(blocks[place]).save(temporary)
