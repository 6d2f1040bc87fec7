"""A trained model, as Beam's RunInference takes it."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from cbsn.checksums import CHECKSUMS
from cbsn.data.image_io import pixel_bytes, read_picture
from cbsn.data.picture import Picture
from cbsn.devices import select_gpus
from cbsn.errors import CbsnError, ImageError, ModelError, plain_reason
from cbsn.inference.beam.locations import is_url, local_copies, local_copy
from cbsn.inference.denoiser import Denoiser
from cbsn.model_folder import RECIPE, WEIGHTS
from cbsn.model_path import RUN_MODELS
from cbsn.value_range import value_range


class Work(NamedTuple):
    """A picture to denoise.

    Args:
        source: path or URL of the noisy picture.
        target: path or URL of the denoised one.
    """

    source: str
    target: str


class Failure(NamedTuple):
    """What there is in place of a denoised picture.

    Args:
        reason: why, in a line.
    """

    reason: str

    @classmethod
    def of(cls, error: Exception, location: str) -> "Failure":
        """Puts into words what failed; of what was not foreseen, the traceback is logged.

        Args:
            error: what was raised.
            location: of the file in question; its name in front is left away.
        """
        if isinstance(error, MemoryError):
            return cls("not enough memory; try a smaller --tile")
        reason = plain_reason(error).removeprefix(f"{location}: ")
        if isinstance(error, CbsnError | OSError):
            return cls(reason)
        logging.getLogger(__name__).error("%s failed", location, exc_info=error)
        return cls(f"{type(error).__name__}: {reason}")


class DenoisingModelHandler(ModelHandler[Work, PredictionResult, Denoiser]):
    """Reads and denoises pictures with a model that each worker process loads once.

    Pictures are read here, and not by a step of its own, so that only their names wait for it, and
    one picture is in memory at a time.

    The model is not shared across processes: it is small beside the pictures, which would all have
    to be sent to the process that has it, and back.

    Args:
        model_path: what `Denoiser.load` takes; or the URL of a saved-model folder, or of a run's.
        max_bytes: pictures whose pixels take more bytes are refused before they are decoded.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.
        **options: of `Denoiser.load`.

    Example:
        >>> handler = DenoisingModelHandler("gs://models/cbsn", max_bytes=3 * 10**8, tile=512)
        >>> results = pipeline | beam.Create([Work(noisy, denoised)]) | RunInference(handler)
    """

    def __init__(
        self, model_path: str, *, max_bytes: int, white: float | None = None, **options: Any
    ):
        super().__init__()
        self._model_path = model_path
        self._max_bytes = max_bytes
        self._white = white
        self._options = options

    def batch_elements_kwargs(self) -> dict[str, int]:
        """Says how many pictures to give at a time: one.

        The denoiser makes batches of a picture's tiles by itself; pictures of several sizes would
        not fit together.
        """
        return {"max_batch_size": 1}

    def load_model(self) -> Denoiser:
        """Loads the model.

        Raises:
            ConfigError: if an option cannot be had.
            ModelError: if there is no such model, or it cannot be read.
        """
        select_gpus(None, most=1)  # one picture at a time
        with _local_model(self._model_path) as path:
            denoiser = Denoiser.load(path, **self._options)
        logging.getLogger(__name__).info(denoiser.choices)
        return denoiser

    def run_inference(
        self,
        batch: Sequence[Work],
        model: Denoiser,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        """Denoises pictures.

        Args:
            batch: the pictures.
            model: from `load_model`.
            inference_args: of no use here.

        Yields:
            Of each picture its `Work`, with the denoised `Picture` or a `Failure`.
        """
        for work in batch:
            yield PredictionResult(work, self._denoise(work.source, model))

    def _denoise(self, source: str, denoiser: Denoiser) -> Picture | Failure:
        # Whatever is wrong with one picture must not stop the others.
        try:
            with local_copy(source) as path:
                self._check_size(path)
                picture = read_picture(path, white=self._white)
            white = value_range(picture.pixels.dtype)
            return picture.with_pixels(denoiser(picture.pixels, in_place=True, white=white))
        except Exception as error:
            return Failure.of(error, source)

    def _check_size(self, path: Path) -> None:
        size = pixel_bytes(path)
        if size > self._max_bytes:
            raise ImageError(
                f"{path}: its pixels would take {size / 1e6:,.0f} MB, and the limit is "
                f"{self._max_bytes / 1e6:,.0f} MB: cut it up, or raise --max_megapixels."
            )


@contextlib.contextmanager
def _local_model(location: str) -> Iterator[str | Path]:
    """Gives a model as a local one: itself, or a temporary copy of its folder."""
    if not is_url(location):
        yield location
        return
    try:
        url = _model_url(location.rstrip("/"))
        with local_copies(url, (RECIPE, WEIGHTS, CHECKSUMS)) as folder:
            yield folder
    except CbsnError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise ModelError(f"{location} cannot be read: {plain_reason(error)}") from error


def _model_url(location: str) -> str:
    """The URL of the saved-model folder that a location means."""
    for url in (location, *(f"{location}/{name}" for name in RUN_MODELS)):
        if FileSystems.exists(f"{url}/{RECIPE}"):
            return url
    raise ModelError(
        f"No model at {location}. A URL names a saved-model folder (with {RECIPE}), or a run's "
        f"(with {' or '.join(RUN_MODELS)} in it)."
    )
