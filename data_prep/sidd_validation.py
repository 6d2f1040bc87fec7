"""The validation blocks of SIDD as two folders of PNG files, noisy and clean."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cbsn.data.benchmark_files import block_places, read_blocks
from cbsn.errors import DataError
from cbsn.files import atomic_path, write_json

# The folders written, and the names that their source goes by.
_SIDES = {
    "noisy": ("ValidationNoisyBlocksSrgb.mat",),
    "clean": ("ValidationGtBlocksSrgb.mat", "ValidationGTBlocksSrgb.mat"),
}
_PAIRS_NAME = "pairs.json"  # written last: what the pairs were made of
_BLOCK_NAME = "[0-9][0-9][0-9][0-9]_[0-9][0-9].png"


def write_pairs(source: str | Path, out: str | Path, *, force: bool = False) -> str:
    """Writes block m of picture n as `OUT/noisy/NNNN_MM.png` and `OUT/clean/NNNN_MM.png`.

    `source` is the folder with the two `.mat` files of SIDD's validation data; a DataError tells if
    they cannot be used. Nothing is done if the pairs in `out` are complete and made of these two,
    unless `force`. Returns what was done.
    """
    source, out = Path(source), Path(out)
    paths = {side: _find(source, names) for side, names in _SIDES.items()}
    stats = {path.name: path.stat() for path in paths.values()}
    made_of = {n: {"size": s.st_size, "mtime_ns": s.st_mtime_ns} for n, s in stats.items()}
    if not force and (pairs := _pairs_before(out, made_of)):
        return f"{out}: {pairs} pairs were already done."
    blocks = {side: read_blocks(path) for side, path in paths.items()}
    noisy, clean = blocks.values()
    if noisy.shape != clean.shape:
        raise DataError(
            f"{paths['noisy']} and {paths['clean']} do not belong together: their blocks have "
            f"the shapes {noisy.shape} and {clean.shape}. Download both again."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / _PAIRS_NAME).unlink(missing_ok=True)
    for side, values in blocks.items():
        _write_side(out / side, values)
    pairs = len(block_places(noisy))
    write_json(out / _PAIRS_NAME, {"pairs": pairs, "sources": made_of})
    return f"{out}: {pairs} pairs of blocks, in the folders noisy and clean."


def _find(source: Path, names: tuple[str, ...]) -> Path:
    paths = [source / name for name in names]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"There is no {' or '.join(map(str, paths))}. Download SIDD's "
        "validation blocks from https://abdokamel.github.io/sidd and say with --source where "
        "they lie."
    )


def _pairs_before(out: Path, made_of: dict) -> int:
    """The number of pairs in `out` if they are complete and made of these files, else 0."""
    noisy, clean = (len(list((out / side).glob(_BLOCK_NAME))) for side in _SIDES)
    try:
        state = json.loads((out / _PAIRS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return 0
    return noisy if state == {"pairs": noisy, "sources": made_of} and noisy == clean else 0


def _write_side(folder: Path, blocks: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    places = {f"{name}.png": place for name, place in block_places(blocks).items()}
    for name, place in tqdm(places.items(), desc=f"Writing {folder.name}", unit="block"):
        with atomic_path(folder / name) as temporary:
            Image.fromarray(blocks[place]).save(temporary)
    for path in folder.glob(_BLOCK_NAME):
        if path.name not in places:  # a block of an earlier, larger set
            path.unlink()
