"""The pipeline: pictures are denoised and written, and what failed is noted."""

import json
import logging
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from cbsn.data.image_io import write_picture
from cbsn.data.picture import Picture
from cbsn.errors import ConfigError, PipelineError
from cbsn.inference.beam.locations import new_file
from cbsn.inference.beam.model_handler import DenoisingModelHandler, Failure, Work

FAILED = "failed"
"""Folder, in that of the results, for the reasons of what failed."""

_METRICS = "cbsn"
_DENOISED, _FAILED = "denoised", "failed"


def run_pipeline(
    options: PipelineOptions, works: Sequence[Work], handler: DenoisingModelHandler, output: str
) -> tuple[int, int] | None:
    """Denoises pictures.

    Args:
        options: Beam's.
        works: the pictures.
        handler: the model.
        output: path or URL of the folder of the results. For each picture that failed,
            `failed/failed-*.jsonl` in it get a line of JSON: `{"source": …, "reason": …}`.

    Returns:
        How many were denoised, and how many failed; None if the pipeline is not waited for.

    Raises:
        ConfigError: if the runner lacks an option.
        PipelineError: if the pipeline failed as a whole.
    """
    try:
        pipeline = beam.Pipeline(options=options)
    except Exception as error:  # each runner has errors of its own
        raise ConfigError(f"Beam cannot take these flags: {_last_line(error)}") from error
    failed = (
        pipeline
        | "Pictures" >> beam.Create(works)
        | "Denoise" >> RunInference(handler)
        | "Write" >> beam.ParDo(WritePicture())
    )
    failed | "Failed" >> beam.io.WriteToText(
        f"{output}/{FAILED}/failed", ".jsonl", skip_if_empty=True
    )
    try:
        result = pipeline.run()
        if options.view_as(StandardOptions).no_wait_until_finish:
            return None
        state = result.wait_until_finish()
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise PipelineError(
            f"The pipeline failed: {_last_line(error)}. What it has done is kept: the same command "
            "goes on with it."
        ) from error
    if state != PipelineState.DONE:
        raise PipelineError(f"The pipeline ended in the state {state}.")
    return _count(result, _DENOISED), _count(result, _FAILED)


class WritePicture(beam.DoFn):
    """Writes denoised pictures; of those that failed, gives a line of JSON."""

    def __init__(self):
        self._denoised = Metrics.counter(_METRICS, _DENOISED)
        self._failed = Metrics.counter(_METRICS, _FAILED)

    def process(self, result: PredictionResult) -> Iterator[str]:
        """Writes one picture.

        Args:
            result: of `DenoisingModelHandler`.

        Yields:
            If it failed, which and why, as `run_pipeline` says.
        """
        work, outcome = result.example, result.inference
        failure = outcome if isinstance(outcome, Failure) else _write(work.target, outcome)
        if failure is None:
            self._denoised.inc()
        else:
            self._failed.inc()
            line = json.dumps({"source": work.source, "reason": failure.reason}, ensure_ascii=False)
            # As `write_text` has it: what is no UTF-8 in a file's name is escaped, as JSON may be.
            yield line.encode(errors="backslashreplace").decode()


def _write(target: str, picture: Picture) -> Failure | None:
    try:
        with new_file(target) as path:
            losses = write_picture(path, picture)
    except Exception as error:  # the others are to be written all the same
        return Failure.of(error, target)
    for loss in losses:
        logging.getLogger(__name__).warning("%s: %s.", target, loss)
    return None


def _count(result: beam.runners.runner.PipelineResult, name: str) -> int:
    found = result.metrics().query(MetricsFilter().with_namespace(_METRICS).with_name(name))
    return sum(counter.result for counter in found["counters"])


def _is_interrupt(error: BaseException | None) -> bool:
    """Says whether Ctrl-C is what an error began with: Beam makes it an error of a step."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _last_line(error: Exception) -> str:
    """What an error comes to: of one in a worker Beam gives the whole traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
