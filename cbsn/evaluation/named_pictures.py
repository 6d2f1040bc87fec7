"""Finding the pictures that a flag of `evaluate.py` means, by their names."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cbsn.data.image_io import find_images, read_picture
from cbsn.data.picture import Picture
from cbsn.data.sidd_blocks import block_places, read_blocks
from cbsn.errors import DataError
from cbsn.files import expanded

Item = TypeVar("Item")

BLOCKS_SUFFIX = ".mat"


@dataclasses.dataclass(frozen=True)
class NamedPicture:
    """A picture that is read when it is needed.

    Args:
        name: str, what pairs it with others: its file's name without suffix, or `NNNN_MM` for a
            block of SIDD.
        place: str, where it lies, for messages.
        read: returns it; raises ImageError if it cannot.
    """

    name: str
    place: str
    read: Callable[[], Picture]


def find_named_pictures(pattern: str | Path, white: float | None = None) -> dict[str, NamedPicture]:
    """Finds pictures.

    Args:
        pattern: a folder, a glob or a file, as for `find_images`; or a `.mat` file of SIDD's
            blocks, which are named as `prepare_dataset.py` names them.
        white: what white is in the files, as for `read_picture`.

    Returns:
        By their names, sorted; at least one.

    Raises:
        DataError: there are none, or two of one name, or the `.mat` file cannot be used.
    """
    if str(pattern).lower().endswith(BLOCKS_SUFFIX):
        return _blocks(expanded(pattern))
    found: dict[str, NamedPicture] = {}
    for path in find_images(pattern):
        read = functools.partial(read_picture, path, white=white)
        picture = NamedPicture(path.stem, str(path), read)
        if found.setdefault(path.stem, picture) is not picture:
            raise DataError(f"{path} and {found[path.stem].place} have one name; keep one of them.")
    return dict(sorted(found.items()))


def spread(items: Sequence[Item], number: int) -> list[Item]:
    """Returns so many of a list, evenly spread over it; all of them for 0."""
    if 0 < number < len(items):
        return [items[i * len(items) // number] for i in range(number)]
    return [*items]


def _blocks(path: Path) -> dict[str, NamedPicture]:
    blocks = read_blocks(path)
    return {
        name: NamedPicture(name, f"{path}, block {name}", lambda p=place: Picture(blocks[p], "PNG"))
        for name, place in block_places(blocks).items()
    }
