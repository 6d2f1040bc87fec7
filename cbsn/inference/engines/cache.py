"""What is kept of one use of an engine for the next: converted networks, and measurements.

It lies in the user's cache folder, or in `CBSN_CACHE`, and can be deleted at any time. Where it
cannot be written, everything is done again each time.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from cbsn.errors import ModelError
from cbsn.files import atomic_folder, read_small, verify_checksums, write_checksums, write_json
from cbsn.recipes import Recipe

_CONVERTED = "converted"
_KEPT = 8  # converted networks; the large model's take 33 MB each
_MEASURED = "engines.json"
_MOST_BYTES = 1 << 20


def folder() -> Path:
    """Returns the cache folder, which need not exist."""
    return Path(os.environ.get("CBSN_CACHE") or platformdirs.user_cache_dir("cbsn", False))


def name_of(form: str, version: str, recipe: Recipe, network: Any, blind: bool) -> str:
    """Returns a name for a converted network, which tells its form, weights and pass."""
    config = {k: v for k, v in network.get_config().items() if k not in ("name", "dtype")}
    about = [form, version, recipe.network, config, recipe.border, blind]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for weights in network.get_weights():
        digest.update(weights.tobytes())
    return f"{form}-{digest.hexdigest()[:32]}"


def find(name: str) -> Path | None:
    """Returns the folder of a converted network; None if there is none, or it is damaged."""
    path = folder() / _CONVERTED / name
    try:
        verify_checksums(path)
        os.utime(path)
    except (ModelError, OSError):
        return None
    return path


def keep(name: str, write: Callable[[Path], Any]) -> None:
    """Keeps a converted network, which `write` writes into a folder; deletes the oldest."""
    parent = folder() / _CONVERTED
    with contextlib.suppress(OSError):
        parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(parent / name) as temporary:
            write(temporary)
            write_checksums(temporary)
        by_age = sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_age[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def measured() -> dict[str, dict[str, Any]]:
    """Returns all measurements, by what was measured."""
    try:
        found = json.loads(read_small(folder() / _MEASURED, _MOST_BYTES))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in entries if isinstance(value, dict)}


def add_measured(key: str, result: Mapping[str, Any]) -> None:
    """Adds a measurement."""
    with contextlib.suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        write_json(folder() / _MEASURED, {**measured(), key: result})
