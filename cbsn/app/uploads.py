"""Takes pictures from users: bounded, under safe names, and only what is a picture."""

import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from cbsn.app.disk import Disk, FullError
from cbsn.app.options import AppOptions
from cbsn.app.pictures import UserPicture, check_name, check_picture, free_name, named
from cbsn.app.sessions import Session
from cbsn.errors import CbsnError

MOST_PICTURES = 2000
"""Pictures that one user may have at a time."""

_CHUNK = 2**20  # bytes that are written at once


class TooLargeError(CbsnError):
    """A file that is larger than the server takes."""


async def receive(
    request: Request, session: Session, disk: Disk, options: AppOptions
) -> UserPicture:
    """Takes a picture, whose name is in the query and whose bytes are the body.

    Raises:
        ImageError: if the name is that of no file, or the bytes are no picture.
        TooLargeError: if there are too many bytes.
        FullError: if there are too many pictures, or there is no room.
    """
    name = request.query_params.get("name", "")
    check_name(name)
    if len(session.pictures) >= MOST_PICTURES:
        raise FullError(
            f"There are {MOST_PICTURES} pictures, which is the most: remove some first."
        )
    most = int(options.max_file_mb * 1e6)
    too_large = TooLargeError(
        f"{name} is larger than {options.max_file_mb:g} MB, the most that this server takes: start "
        "it with a larger --max_file_mb."
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 15 or int(announced) > most):
        raise too_large
    received = 0
    # In a folder of its own until it is known to be a picture.
    folder = session.folder / secrets.token_hex(8)
    folder.mkdir()
    path = folder / name
    try:
        with path.open("xb") as file:
            async for chunk in _chunks(request):
                if received + len(chunk) > most:
                    raise too_large
                await run_in_threadpool(disk.take, len(chunk))
                received += len(chunk)
                await run_in_threadpool(file.write, chunk)
        picture = await run_in_threadpool(_add, session, path, received, disk, options)
        received = 0  # what it takes is the picture's now
        return picture
    finally:
        disk.release(received)
        shutil.rmtree(folder, ignore_errors=True)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yields the body of a request in larger parts than it comes in."""
    waiting = bytearray()
    async for part in request.stream():
        waiting += part
        if len(waiting) >= _CHUNK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def _add(session: Session, path: Path, size: int, disk: Disk, options: AppOptions) -> UserPicture:
    """Adds a file that was received to a user's pictures, if it is one."""
    try:
        check_picture(path, options.max_megapixels)
    except CbsnError as error:
        raise type(error)(named(path, str(error))) from error
    with session.changing:
        # Those of pictures that were removed are there until their jobs have ended.
        taken = {each.name for each in session.uploads.iterdir()}
        target = session.uploads / free_name(path.name, taken)
        path.rename(target)
        picture = UserPicture(target, size, disk)
        session.pictures[picture.id] = picture
    return picture
