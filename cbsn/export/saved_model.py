"""A SavedModel as TensorFlow Serving polls it: a numbered folder in the model's own."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from cbsn.export.signatures import MAX_PIXELS, ServedDenoiser
from cbsn.export.warmup import write_warmup
from cbsn.files import atomic_folder, write_json
from cbsn.inference.denoiser import Denoiser

FACTS = "assets.extra/cbsn.json"
"""What the model is, for a reader; the server does not look at it."""


def write_saved_model(
    folder: Path,
    denoiser: Denoiser,
    *,
    facts: dict[str, Any] | None = None,
    warmup: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Writes a denoiser with the signatures of `ServedDenoiser`.

    It needs nothing of this package to run. While it is written, the folder has a name that the
    server does not take for a version.

    Args:
        folder: where to, `MODEL/VERSION`; its parent must exist.
        denoiser: what to export; its tiles are those of the graph.
        facts: what to say of it in `FACTS`.
        warmup: whether to write warm-up requests. Default True.
        max_pixels: int, of an encoded picture.

    Raises:
        ConfigError: if warm-up requests cannot be made.
        OSError: it cannot be written; nothing is left of it. Or TensorFlow's own error.
    """
    served = ServedDenoiser(denoiser, max_pixels)
    with atomic_folder(folder) as temporary:
        (temporary / FACTS).parent.mkdir()
        write_json(temporary / FACTS, facts or {})
        if warmup:
            write_warmup(temporary, folder.parent.name)
        tf.saved_model.save(served, str(temporary), signatures=served.functions)
