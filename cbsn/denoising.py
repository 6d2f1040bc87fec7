"""What `infer.py` does: chooses a model, adapts it if asked to, and denoises pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbsn.data.augment import NUM_ORIENTATIONS
from cbsn.errors import ConfigError
from cbsn.model_path import SHIPPED

QUALITIES = {"fast": "photo", "default": "photo_large", "best": "photo_large"}
"""Which of the models that ship denoises; for "best" it is self-ensembled, too."""

FAST_SHARE = 0.3
"""Of the default's time, what "fast" takes: measured."""


def denoise(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    model_path: str | Path | None = None,
    quality: str | None = None,
    adapt: float | None = None,
    adapt_save: str | Path | None = None,
    self_ensemble: bool = False,
    **options: Any,
) -> int:
    """Denoises pictures, by default with the model that ships.

    Args:
        image_paths: folders, globs or files.
        save_path: folder for the results.
        model_path: as for `Denoiser.load`; None for a model that ships.
        quality: one of `QUALITIES`, which says what model that is. None for "default", or where
            there is a `model_path`.
        adapt: float > 0, minutes to adapt the model to the pictures first, as
            `cbsn.adaptation.adapt.adapted` does. None for not at all.
        adapt_save: folder to keep the adapted model in; None for not at all.
        self_ensemble: as for `Denoiser`.
        **options: of `cbsn.inference.files.denoise_files`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        ConfigError: if options do not go together.
        CbsnError: as `denoise_files` and `adapt` do.
    """
    if model_path is not None and quality is not None:
        raise ConfigError(
            "--quality chooses among the models that ship: give either that or --modelpath. "
            f"Received: --modelpath {model_path} --quality {quality}"
        )
    if adapt is None and adapt_save is not None:
        raise ConfigError(
            "--adapt_save keeps what --adapt MINUTES makes: give that, too. "
            f"Received: --adapt_save {adapt_save}"
        )
    options["self_ensemble"] = self_ensemble or quality == "best"
    fast_share = None
    if model_path is None:
        model_path = SHIPPED / QUALITIES[quality or "default"]
        if quality != "fast":
            fast_share = FAST_SHARE / (NUM_ORIENTATIONS if options["self_ensemble"] else 1)
    if adapt is None:
        from cbsn.inference.files import denoise_files

        return denoise_files(model_path, image_paths, save_path, fast_share=fast_share, **options)
    # It imports all that training needs.
    from cbsn.adaptation.files import adapt_and_denoise_files

    return adapt_and_denoise_files(
        model_path, image_paths, save_path, minutes=adapt, adapt_save=adapt_save, **options
    )
