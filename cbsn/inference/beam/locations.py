"""Files that may be local, or on any file system that Beam knows by its URLs (`gs://…`)."""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from cbsn.errors import CbsnError, ConfigError, DataError, plain_reason
from cbsn.images.finding import IMAGE_SUFFIXES, find_images

# Otherwise what is called *.gz would be unpacked on the way.
_AS_IT_IS = {"compression_type": CompressionTypes.UNCOMPRESSED}


def is_url(location: str) -> bool:
    """Says whether a location is a URL, rather than a local path."""
    return "://" in location


def has_wildcard(location: str) -> bool:
    """Says whether Beam would take a location for a glob."""
    return any(character in location for character in "*?[")


def find_pictures(pattern: str) -> dict[str, float]:
    """The picture files that a pattern stands for, and when each was last changed, in seconds.

    A local pattern is as `find_images` takes it; a URL is a glob as Beam has it (`*` is any text
    without `/`, `**` any text), a file with one of `IMAGE_SUFFIXES`, or else a folder.

    Raises:
        DataError: nothing was found.
        ConfigError: nobody here knows such URLs, or they cannot be listed.
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
    """As `find_pictures`, of all files that a glob of Beam's stands for; there may be none."""
    try:
        [result] = FileSystems.match([pattern])
    except Exception as error:  # each file system has errors of its own
        raise ConfigError(f"{pattern} cannot be listed: {plain_reason(error)}") from error
    return {file.path: file.last_updated_in_seconds for file in result.metadata_list}


def _is_picture(url: str) -> bool:
    """Says whether a file's name is one that a folder is searched for."""
    name = Path(url.rpartition("/")[2])
    return name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith(".")


@contextlib.contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """Gives a file as a local one: itself, or a temporary copy."""
    if not is_url(location):
        yield Path(location)
        return
    folder, _, name = location.rpartition("/")
    with local_copies(folder, [name]) as copies:
        yield copies / name


@contextlib.contextmanager
def local_copies(folder: str, names: Iterable[str]) -> Iterator[Path]:
    """Gives a temporary folder with copies of files of the folder at a URL."""
    with tempfile.TemporaryDirectory() as copies, _named(copies, folder):
        for name in names:
            copy = Path(copies, name)
            with FileSystems.open(f"{folder}/{name}", **_AS_IT_IS) as source, copy.open("wb") as to:
                shutil.copyfileobj(source, to, 2**20)
        yield Path(copies)


@contextlib.contextmanager
def new_file(location: str) -> Iterator[Path]:
    """Gives a local path, to be written atomically; what is there afterwards goes to `location`.

    The folder is made. A remote file is uploaded under a temporary name, then renamed.
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
            FileSystems.delete([url])  # HDFS does not rename to a name that is taken
            FileSystems.rename([temporary], [url])
    except BaseException:
        with contextlib.suppress(Exception):
            FileSystems.delete([temporary])
        raise


@contextlib.contextmanager
def _named(copies: str, url: str) -> Iterator[None]:
    """Makes the errors of the block speak of a folder's URL instead of its local copy."""
    try:
        yield
    except CbsnError as error:
        raise type(error)(str(error).replace(copies, url)) from error
