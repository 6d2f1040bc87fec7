"""The data pipeline alone: how many patches it delivers, and their cost in CPU time."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Sample, Side, compare
from benchmarks.report import Column
from benchmarks.settings import Settings
from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import PatchRecords, RecordWriter

TITLE = "Data pipeline"
COLUMNS = (
    Column("batches_per_second", "batches/s", ".1f"),
    Column("patches_per_second", "patches/s", ".0f"),
    Column("cpu_us_per_patch", "CPU us/patch", ".0f"),
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
)

BATCHES = (4, 32)
_RECORD_SIZE = 256
_WHOLE_SIZES = (256, 512)
"""Sides of the patches that an augmentation gets whole, from memory."""


def measurement(pipeline: PatchPipeline, crops: int) -> Callable[[], Sample]:
    """Returns a measurement of at least `crops` crops, from a freshly started iterator.

    Patches that are kept in memory are read before the first batch, which is not counted.
    """
    count = -(-crops // pipeline.batch_size)

    def measure() -> Sample:
        batches = iter(pipeline.dataset())
        next(batches)  # starts the threads
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            next(batches)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        taken = count * pipeline.batch_size
        return {
            "seconds": seconds,
            "batches_per_second": count / seconds,
            "patches_per_second": taken / seconds,
            "cpu_us_per_patch": cpu / taken * 1e6,  # of all threads
        }

    return measure


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    size = settings.patch_size
    with tempfile.TemporaryDirectory() as folder:
        records = _write_records(Path(folder), settings.records, _RECORD_SIZE)
        sides = []
        for batch in BATCHES:
            measure = measurement(PatchPipeline(records, size, batch), settings.crops)
            sides.append(Side(f"batch {batch}", measure, base=f"batch {BATCHES[0]}"))
        case = f"{settings.records} of {_RECORD_SIZE}x{_RECORD_SIZE}, crops of {size}"
        yield compare(case, sides, settings.repeats)
    batch = BATCHES[-1]
    for whole in _WHOLE_SIZES:
        # The same number of pixels for each size.
        count = settings.records * _RECORD_SIZE**2 // whole**2
        with tempfile.TemporaryDirectory() as folder:
            records = _write_records(Path(folder), count, whole)
            pipelines = {
                "crops": PatchPipeline(records, size, batch),
                "whole": PatchPipeline(records, size, batch, whole=True),
            }
            sides = [
                Side(name, measurement(pipeline, settings.crops), base="crops")
                for name, pipeline in pipelines.items()
            ]
            case = f"{count} of {whole}x{whole}, crops of {size} or whole, batch {batch}"
            yield compare(case, sides, settings.repeats)


def _write_records(folder: Path, count: int, size: int) -> PatchRecords:
    random = np.random.default_rng(0)
    path = folder / "noise.tfrecords"
    with RecordWriter(path) as writer:
        for _ in range(count):
            writer.write(random.integers(0, 256, (size, size, 3), "uint8"))
    return PatchRecords([path], size, np.dtype("uint8"))
