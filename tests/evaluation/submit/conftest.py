"""Submissions to try out, and how their files are compared."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from cbsn.evaluation.submit.benchmarks import DndSubmission, SiddSubmission

GOLDEN = "submission_and_metric"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """The many small files here would take ten times as long."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def sidd_source(golden) -> Path:
    """Two images of 32 blocks of 8 × 8."""
    return golden(f"{GOLDEN}/sidd/BenchmarkNoisyBlocksSrgb.mat")


@pytest.fixture
def dnd_source(golden) -> Path:
    """Two images with 20 boxes of 16 × 12."""
    return golden(f"{GOLDEN}/dnd/dnd_2017/info.mat").parent


@pytest.fixture(params=["sidd", "dnd"])
def begin(request, tmp_path):
    """Makes either benchmark's submission to the folder `out` of the test."""
    kinds = {"sidd": SiddSubmission, "dnd": DndSubmission}
    source = request.getfixturevalue(f"{request.param}_source")
    return lambda out="out", **options: kinds[request.param](source, tmp_path / out, **options)


@pytest.fixture
def assert_same_mat():
    """Asserts that two MATLAB files have the same variables: classes, shapes, dtypes, values."""

    def check(actual: Path, expected: Path) -> None:
        assert sorted(scipy.io.whosmat(actual)) == sorted(scipy.io.whosmat(expected))
        contents = [scipy.io.loadmat(path) for path in (actual, expected)]
        for name, shape, kind in scipy.io.whosmat(expected):
            values = [content[name] for content in contents]
            if kind != "cell":
                values = [[value] for value in values]
            else:
                assert values[0].shape == values[1].shape == shape
                values = [value.ravel() for value in values]
            for one, other in zip(*values, strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, strict=True)

    return check


class Counting:
    """The golden denoisers, which count their calls and can be made to fail.

    Args:
        fail_at: number of the call, from 1, that raises; 0 for none.
        error: what it raises.
    """

    def __init__(self, fail_at: int = 0, error: Exception | None = None):
        self.calls = 0
        self._fail_at = fail_at
        self._error = error or RuntimeError("power cut")

    def __call__(self, noisy: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == self._fail_at:
            raise self._error
        if noisy.dtype == np.float32:
            return noisy
        return np.floor(255 - noisy.astype(np.float32) + 0.25 + 0.5).astype(np.uint8)


@pytest.fixture
def counting():
    return Counting
