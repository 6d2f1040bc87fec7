"""The pipeline, which denoises and writes pictures and stacks, and notes which failed."""

import collections
import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from cbsn.devices import select_gpus
from cbsn.errors import CbsnError, ConfigError, ImageError, ModelError, PipelineError, plain_reason
from cbsn.files import CHECKSUMS
from cbsn.images.image_files import read_header, read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.images.stacks.opening import is_stack
from cbsn.inference.beam.locations import is_url, local_copies, local_copy, new_file
from cbsn.inference.beam.stacks import (
    StackJob,
    StackPart,
    StackPlan,
    denoise_part,
    finish_stack,
    not_mounted,
    plan_stack,
)
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.models.folder import RECIPE, WEIGHTS
from cbsn.models.loading import RUN_MODELS
from cbsn.value_range import value_range

FAILED = "failed"  # sub-folder of the results, for the reasons why pictures failed

_METRICS = "cbsn"
_LOG = logging.getLogger(__name__)


class Work(NamedTuple):
    """A picture to denoise: the paths or URLs of the noisy one and of the denoised one."""

    source: str
    target: str


def run_pipeline(
    options: PipelineOptions,
    works: Sequence[Work],
    handler: "DenoisingModelHandler",
    output: str,
    jpeg_quality: int = 95,
    jobs: Sequence[StackJob] = (),
) -> tuple[int, int] | None:
    """Returns how many files were denoised and how many failed; None if it does not wait.

    `works` are pictures, and `jobs` are stacks. Each that failed adds a line of JSON to
    `failed/failed-*.jsonl` in the folder `output`: `{"source": …, "reason": …}`. Raises ConfigError
    if the runner lacks an option, PipelineError if the pipeline failed as a whole.
    """
    try:
        pipeline = beam.Pipeline(options=options)
    except Exception as error:  # each runner raises its own errors
        raise ConfigError(f"Beam does not accept these flags: {_last_line(error)}") from error
    failed = []
    if works:
        failed.append(
            pipeline
            | "Pictures" >> beam.Create(works)
            | "Denoise" >> RunInference(handler)
            | "Write" >> beam.ParDo(WritePicture(jpeg_quality))
        )
    if jobs:
        failed.append(_denoise_stacks(pipeline, jobs, handler))
    (
        failed
        | beam.Flatten()
        | "Failed" >> beam.io.WriteToText(f"{output}/{FAILED}/failed", ".jsonl", skip_if_empty=True)
    )
    try:
        result = pipeline.run()
        if options.view_as(StandardOptions).no_wait_until_finish:
            return None
        state = result.wait_until_finish()
    except Exception as error:
        if interrupt := _interrupt(error):
            raise interrupt from None
        raise PipelineError(
            f"The pipeline failed: {_last_line(error)}. Finished pictures are kept: run the same "
            "command again to continue."
        ) from error
    if state != PipelineState.DONE:
        raise PipelineError(f"The pipeline ended in the state {state}.")
    counters = result.metrics().query(MetricsFilter().with_namespace(_METRICS))["counters"]
    # Pictures and stacks have counters of their own.
    counts: collections.Counter[str] = collections.Counter()
    for counter in counters:
        counts[counter.key.metric.name] += counter.result
    return counts["denoised"], counts["failed"]


def _denoise_stacks(
    pipeline: beam.Pipeline, jobs: Sequence[StackJob], handler: "DenoisingModelHandler"
) -> beam.PCollection:
    """Adds the steps for stacks, and returns the lines of those that failed."""
    plans = pipeline | "Stacks" >> beam.Create(jobs) | "Plan" >> RunInference(handler)
    parts = (
        plans
        | "Planes" >> beam.FlatMap(_parts)
        | "Distribute" >> beam.Reshuffle()
        | "Denoise planes" >> RunInference(handler)
    )
    return (
        (plans, parts)
        | "Outcomes" >> beam.Flatten()
        | "Of which" >> beam.Map(_with_target).with_output_types(tuple[bytes, Any])
        | "All of one" >> beam.GroupByKey()
        | "Finish" >> beam.ParDo(FinishStack(handler.stacks))
    )


def _parts(result: PredictionResult) -> Iterator[StackPart]:
    job: Any = result.example
    plan: Any = result.inference
    if isinstance(plan, StackPlan):
        for group in plan.groups:
            yield StackPart(job, plan.scalings, group)


def _with_target(result: PredictionResult) -> tuple[bytes, PredictionResult]:
    work: Any = result.example
    job = work.job if isinstance(work, StackPart) else work
    return os.fsencode(job.target), result  # names may be of any bytes, which text is not


@dataclasses.dataclass(eq=False)
class DenoisingModelHandler(ModelHandler[Any, PredictionResult, Denoiser]):
    """Reads and denoises pictures with a model that each worker process loads once.

    Pictures are read here, not in a separate step, so that only their names are queued and one
    picture is in memory at a time. Processes do not share the model: it is small compared with the
    pictures, which would have to be sent to the process that holds it, and back.

    A `StackJob` becomes a `StackPlan`. The planes of a `StackPart` are also written, and the result
    is the number of values that are filled.

    Args:
        model_path: see `Denoiser.load`; or the URL of a saved-model folder or of a run's folder.
        options: see `Denoiser.load`.
        max_bytes: pictures whose pixels take more bytes are refused before they are decoded.
        white: the value of white in the files, as for `read_picture`. Default None.
        stacks: how stacks are read, scaled and written. Default `StackOptions()`.

    Example:
        >>> options = DenoiseOptions(tile=512)
        >>> handler = DenoisingModelHandler("gs://models/cbsn", options, max_bytes=3 * 10**8)
        >>> results = pipeline | beam.Create([Work(noisy, denoised)]) | RunInference(handler)
    """

    model_path: str
    options: DenoiseOptions
    _: dataclasses.KW_ONLY
    max_bytes: int
    white: float | None = None
    stacks: StackOptions = dataclasses.field(default_factory=StackOptions)

    def __post_init__(self) -> None:
        super().__init__()

    def batch_elements_kwargs(self) -> dict[str, int]:
        """Sets the batch size to one picture, because its tiles already form batches."""
        return {"max_batch_size": 1}

    def load_model(self) -> Denoiser:
        """Loads the model; raises the errors of `Denoiser.load`."""
        select_gpus(None, most=1)  # one picture at a time
        with _local_model(self.model_path) as path:
            denoiser = Denoiser.load(path, self.options)
        _LOG.info(denoiser.choices)
        return denoiser

    def run_inference(
        self,
        batch: Sequence[Work | StackJob | StackPart],
        model: Denoiser,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        """Yields each picture's `Work` with the denoised `Picture`, or a str: why it failed."""
        for work in batch:
            try:
                result: Picture | StackPlan | int | str
                if isinstance(work, StackJob):
                    result = plan_stack(work, model, self.stacks)
                elif isinstance(work, StackPart):
                    result = denoise_part(work, model, self.stacks)
                else:
                    result = self._denoise(work.source, model)
            except Exception as error:  # the others are still denoised
                result = _reason(error, work.source)
            yield PredictionResult(work, result)

    def _denoise(self, source: str, denoiser: Denoiser) -> Picture:
        with local_copy(source) as path:
            if is_url(source) and is_stack(path):
                raise ImageError(not_mounted(source))
            size = read_header(path).pixel_bytes
            if size > self.max_bytes:
                raise ImageError(
                    f"{path}: its pixels would take {size / 1e6:,.0f} MB, and the limit is "
                    f"{self.max_bytes / 1e6:,.0f} MB: split it, or raise --max_megapixels."
                )
            picture = read_picture(path, white=self.white)
        white = value_range(picture.pixels.dtype)
        if denoiser.scaling:  # of a model that was trained on stacks: by the file's values
            picture.range_in_file.stretch(picture.color, undo=True)
            picture = dataclasses.replace(picture, value_range=None)
        return picture.with_pixels(denoiser(picture.pixels, in_place=True, white=white))


class WritePicture(beam.DoFn):
    """Writes denoised pictures, and yields a line of JSON for each one that failed."""

    def __init__(self, jpeg_quality: int = 95):
        self._jpeg_quality = jpeg_quality
        self._denoised = Metrics.counter(_METRICS, "denoised")
        self._failed = Metrics.counter(_METRICS, "failed")

    def process(self, result: PredictionResult) -> Iterator[str]:
        """Writes one picture of `DenoisingModelHandler`. If it failed, yields its name and why."""
        work: Any = result.example
        reason: Any = result.inference
        if isinstance(reason, Picture):
            try:
                with new_file(work.target) as path:
                    losses = write_picture(path, reason, jpeg_quality=self._jpeg_quality)
                for loss in losses:
                    _LOG.warning("%s: %s.", work.target, loss)
                self._denoised.inc()
                return
            except Exception as error:  # the others are still written
                reason = _reason(error, work.target)
        self._failed.inc()
        yield _line(work.source, reason)


class FinishStack(beam.DoFn):
    """Finishes stacks whose planes are all written; yields a line of JSON for each other one."""

    def __init__(self, options: StackOptions):
        self._options = options
        self._denoised = Metrics.counter(_METRICS, "denoised")
        self._failed = Metrics.counter(_METRICS, "failed")

    def process(self, element: tuple[bytes, Iterable[PredictionResult]]) -> Iterator[str]:
        """Finishes one stack, by the results of `DenoisingModelHandler` for the whole and parts."""
        results: list[Any] = [*element[1]]
        [(job, plan)] = [
            (r.example, r.inference) for r in results if isinstance(r.example, StackJob)
        ]
        parts = [result for result in results if isinstance(result.example, StackPart)]
        parts.sort(key=lambda result: result.example.group)
        outcomes = [plan, *(result.inference for result in parts)]
        reason = next((each for each in outcomes if isinstance(each, str)), None)
        if reason is None:
            try:
                finish_stack(job, plan, self._options)
                if filled := sum(outcomes[1:]):
                    text = "%s: %d values that were not finite are filled."
                    _LOG.warning(text, job.source, filled)
                self._denoised.inc()
                return
            except Exception as error:  # the others are still finished
                reason = _reason(error, job.target)
        self._failed.inc()
        yield _line(job.source, reason)


def _line(source: str, reason: str) -> str:
    """Returns the line of a file that failed."""
    line = json.dumps({"source": source, "reason": reason}, ensure_ascii=False)
    # As in `write_text`, bytes of a file's name that are not UTF-8 are escaped, as JSON allows.
    return line.encode(errors="backslashreplace").decode()


def _reason(error: Exception, location: str) -> str:
    """Says in a line without its name why a file failed. Logs an unexpected error in full."""
    if isinstance(error, MemoryError):
        return "not enough memory; try a smaller --tile"
    reason = plain_reason(error).removeprefix(f"{location}: ")
    if isinstance(error, CbsnError | OSError):
        return reason
    _LOG.error("%s failed", location, exc_info=error)
    return f"{type(error).__name__}: {reason}"


@contextlib.contextmanager
def _local_model(location: str) -> Iterator[str | Path]:
    """Provides a local path of a model: its own, or that of a temporary copy of its folder."""
    if not is_url(location):
        yield location
        return
    try:
        url = location.rstrip("/")
        candidates = (url, *(f"{url}/{name}" for name in RUN_MODELS))
        folder = next((each for each in candidates if FileSystems.exists(f"{each}/{RECIPE}")), None)
        if folder is None:
            raise ModelError(
                f"No model at {url}. A URL must be of a saved-model folder (with {RECIPE}) or a "
                f"run's folder (with {' or '.join(RUN_MODELS)} in it)."
            )
        with local_copies(folder, (RECIPE, WEIGHTS, CHECKSUMS)) as copies:
            yield copies
    except CbsnError:
        raise
    except Exception as error:  # each file system raises its own errors
        raise ModelError(f"{location} cannot be read: {plain_reason(error)}") from error


def _interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
    """Returns the Ctrl-C, or the like, that caused an error. Beam makes it an error of a step."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _last_line(error: Exception) -> str:
    """Returns an error's last line. From a worker, Beam passes on the whole traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
