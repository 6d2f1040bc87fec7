"""The folder of a run: who may write in it, and what was trained there before."""

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from cbsn.errors import ConfigError
from cbsn.files import tidy, write_json, write_text
from cbsn.recipes import Recipe
from cbsn.training.checkpoints import CHECKPOINTS

RUN_FILE = "run.json"

_LONGEST_NAME = 255
"""Bytes, on all usual file systems."""


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keeps every other process from training the run in `folder` until the block ends.

    The lock is the operating system's: it goes with the process that holds it, however that ends.

    Args:
        folder: `DIR/NAME`; `DIR` is made if need be.

    Raises:
        ConfigError: if another process holds it, or files cannot be locked there.
    """
    # Beside the folder, which --no-resume renames.
    path, owner_path = _beside(folder, ".", ".lock"), _beside(folder, ".", ".owner")
    lock = filelock.FileLock(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        owner = "another process"
        with contextlib.suppress(OSError):
            owner = owner_path.read_text(encoding="utf-8")
        raise ConfigError(
            f"The run {folder} is being trained by {owner}. Wait for it, stop it, or take another "
            "--name."
        ) from None
    # The second is what older versions of filelock raise where the file system has no locks; newer
    # ones take a file with the owner's process instead.
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"{path} cannot be locked: {error}. Say with --checkpoints where else runs are to go."
        ) from error
    try:
        # Only for the message above: a full disk shall not keep a run from its own errors.
        with contextlib.suppress(OSError):
            write_text(owner_path, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def open_run(
    folder: Path, recipe: Recipe, settings: dict[str, Any], *, resume: bool = True
) -> None:
    """Makes the folder of a run, or checks that an earlier run in it can go on.

    What a killed process left half written in it is cleared away.

    Args:
        folder: `DIR/NAME`. With `resume=False` an earlier run there is set aside under a new
            name; nothing is deleted.
        recipe: what is to be trained. The network must be the earlier run's; other differences
            are allowed, and printed.
        settings: further facts for `run.json` that change what is trained.
        resume: whether to go on where an earlier run of this name stopped.

    Raises:
        ConfigError: if the earlier run is one of another network, or of another average, or the
            folder cannot be written.
    """
    try:
        _open(folder, {**recipe.to_dict(), **settings}, resume)
    except OSError as error:
        raise ConfigError(
            f"The folder of the run cannot be written: {error}. Make room, or say with "
            "--checkpoints where else runs are to go (an earlier one can be moved there)."
        ) from error


def _beside(folder: Path, prefix: str, suffix: str) -> Path:
    """A path next to a folder, with its name; the end of a name that is too long is replaced."""
    name = os.fsencode(folder.name)
    room = _LONGEST_NAME - len(prefix) - len(suffix)
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: room - len(digest)] + digest
    return folder.with_name(f"{prefix}{os.fsdecode(name)}{suffix}")


def _open(folder: Path, now: dict[str, Any], resume: bool) -> None:
    if folder.exists() and not resume:
        number = 1
        while (aside := _beside(folder, "", f".{number}")).exists():
            number += 1
        folder.rename(aside)
        print(f"The earlier run {folder.name} is kept as {aside}.", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    for each in (folder, folder / CHECKPOINTS):
        if each.exists():
            tidy(each)
    path = folder / RUN_FILE
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}). Delete it to go on from the run's checkpoints "
                "with these flags, or start over with --no-resume."
            ) from error
        for key in ("network", "network_config", "average"):
            if before.get(key) != now[key]:
                raise ConfigError(
                    f"The run {folder} was started with {key}={before.get(key)}. Take another "
                    "--name, give the same flags, or start over with --no-resume. "
                    f"Received: {key}={now[key]}"
                )
        for key in now:
            if key in before and before[key] != now[key]:
                print(f"Going on with another {key}: {before[key]} → {now[key]}")
    write_json(path, now)
