"""The data pipeline alone: how many patches it brings, and what they cost the processor."""

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
    Column("patches_per_second", "patches/s", ".0f"),
    Column("cpu_us_per_patch", "CPU us/patch", ".0f"),
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
)

BATCHES = (4, 32)
_RECORD_SIZE = 256


def measurement(pipeline: PatchPipeline, crops: int) -> Callable[[], Sample]:
    """Returns a measurement of so many crops, from an iterator that has just been started."""
    count = -(-crops // pipeline.batch_size)

    def measure() -> Sample:
        batches = iter(pipeline.dataset())
        next(batches)  # what starts the threads
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            next(batches)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        taken = count * pipeline.batch_size
        return {
            "seconds": seconds,
            "patches_per_second": taken / seconds,
            "cpu_us_per_patch": cpu / taken * 1e6,  # of all threads
        }

    return measure


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures, and yields the results of the one case."""
    size = settings.patch_size
    with tempfile.TemporaryDirectory() as folder:
        records = _write_records(Path(folder), settings.records)
        sides = []
        for batch in BATCHES:
            measure = measurement(PatchPipeline(records, size, batch), settings.crops)
            sides.append(Side(f"batch {batch}", measure, base=f"batch {BATCHES[0]}"))
        case = f"{settings.records} of {_RECORD_SIZE}x{_RECORD_SIZE}, crops of {size}"
        yield compare(case, sides, settings.repeats)


def _write_records(folder: Path, count: int) -> PatchRecords:
    random = np.random.default_rng(0)
    with RecordWriter(folder / "noise.tfrecords") as writer:
        for _ in range(count):
            writer.write(random.integers(0, 256, (_RECORD_SIZE, _RECORD_SIZE, 3), "uint8"))
    return PatchRecords.open(folder)
