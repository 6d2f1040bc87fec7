"""Files that are local, or on any file system that Beam reaches by URLs (`gs://…`)."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from cbsn.errors import CbsnError, ConfigError, DataError, plain_reason
from cbsn.images.finding import IMAGE_SUFFIXES, find_images
from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX

# Otherwise Beam would unpack files named *.gz on the way.
_AS_IT_IS = {"compression_type": CompressionTypes.UNCOMPRESSED}


def is_url(location: str) -> bool:
    """Says whether a location is a URL, rather than a local path."""
    return "://" in location


def has_wildcard(location: str) -> bool:
    """Says whether Beam would treat a location as a glob."""
    return any(character in location for character in "*?[")


def find_pictures(pattern: str) -> dict[str, float]:
    """Returns the picture files of a pattern, and when each was last changed, in seconds.

    For a local pattern, see `find_images`. A URL is a glob of Beam's (`*` is any text without `/`,
    `**` any text), a file with one of `IMAGE_SUFFIXES`, or otherwise a folder.

    Raises:
        DataError: nothing was found.
        ConfigError: Beam does not know this kind of URL, or cannot list it.
    """
    if not is_url(pattern):
        return {str(path): path.stat().st_mtime for path in find_images(pattern)}
    if has_wildcard(pattern) or _is_picture(pattern):
        # Object stores may have empty objects that stand for folders.
        found = {url: time for url, time in list_files(pattern).items() if not url.endswith("/")}
    else:
        inside = list_files(f"{pattern.rstrip('/')}/*")
        found = {url: time for url, time in inside.items() if _is_picture(url)}
    if not found:
        raise DataError(
            f"no picture at {pattern}. Give a folder of pictures, a glob in quotes, or one file."
        )
    return found


def list_files(pattern: str) -> dict[str, float]:
    """Returns all files of a glob of Beam's, possibly none, in the form of `find_pictures`."""
    try:
        [result] = FileSystems.match([pattern])
    except Exception as error:  # each file system raises its own errors
        raise ConfigError(f"{pattern} cannot be listed: {plain_reason(error)}") from error
    return {file.path: file.last_updated_in_seconds for file in result.metadata_list}


def list_results(folder: str) -> dict[str, float]:
    """Returns all files in a folder of results, possibly none, in the form of `find_pictures`.

    In a local folder, one of OME-Zarr counts as a file, so that its chunks are not listed.
    """
    if is_url(folder):
        return list_files(f"{folder}/**")
    found = {}
    for place, folders, files in os.walk(folder):
        zarrs = [name for name in folders if name.lower().endswith(ZARR_SUFFIX)]
        folders[:] = [name for name in folders if name not in zarrs]
        for name in (*files, *zarrs):
            path = Path(place, name)
            with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere
                found[f"{folder}/{path.relative_to(folder).as_posix()}"] = path.stat().st_mtime
    return found


def _is_picture(url: str) -> bool:
    """Says whether searching a folder finds a file of this name."""
    name = Path(url.rpartition("/")[2])
    return name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith(".")


@contextlib.contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """Provides a local path of a file: its own, or that of a temporary copy."""
    if not is_url(location):
        yield Path(location)
        return
    folder, _, name = location.rpartition("/")
    with local_copies(folder, [name]) as copies:
        yield copies / name


@contextlib.contextmanager
def local_copies(folder: str, names: Iterable[str]) -> Iterator[Path]:
    """Provides a temporary folder with copies of files from the folder at a URL."""
    with tempfile.TemporaryDirectory() as copies, _named(copies, folder):
        for name in names:
            copy = Path(copies, name)
            with FileSystems.open(f"{folder}/{name}", **_AS_IT_IS) as source, copy.open("wb") as to:
                shutil.copyfileobj(source, to, 2**20)
        yield Path(copies)


@contextlib.contextmanager
def new_file(location: str) -> Iterator[Path]:
    """Provides a local path, to be written atomically. The file ends up at `location`.

    The folder is made if needed. A remote file is uploaded under a temporary name, then renamed.
    """
    if not is_url(location):
        path = Path(location)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        return
    folder, _, name = location.rpartition("/")
    with tempfile.TemporaryDirectory() as copies:
        with _named(copies, folder):
            yield Path(copies, name)
        _upload(Path(copies, name), location)


def _upload(file: Path, url: str) -> None:
    temporary = f"{url.rpartition('/')[0]}/.{uuid.uuid4().hex}"
    try:
        with file.open("rb") as source, FileSystems.create(temporary, **_AS_IT_IS) as target:
            shutil.copyfileobj(source, target, 2**20)
        try:
            FileSystems.rename([temporary], [url])
        except BeamIOError:
            if not FileSystems.exists(url):
                raise
            FileSystems.delete([url])  # HDFS does not rename to an existing name
            FileSystems.rename([temporary], [url])
    except BaseException:
        with contextlib.suppress(Exception):
            FileSystems.delete([temporary])
        raise


@contextlib.contextmanager
def _named(copies: str, url: str) -> Iterator[None]:
    """Makes the errors of the block name a folder's URL instead of its local copy."""
    try:
        yield
    except CbsnError as error:
        raise type(error)(str(error).replace(copies, url)) from error
