"""Files that are damaged in any way give a result or a typed error: no crash, and no hang.

A case that fails is repeated by `python -m tests.fuzz.run KIND 1 NUMBER`. `CBSN_FUZZ_CASES` is the
number of cases of the slow tests.
"""

import os

import pytest

pytest.importorskip("resource")  # Windows has none

from tests.fuzz.run import KINDS, run_cases

FEW = {"pictures": 1500, "preparations": 60, "records": 300, "manifests": 500, "mat": 300}
FEW_MODELS = {"models": 12, "weights": 8, "originals": 8, "checkpoints": 12}
SHARES = {
    "pictures": 0.7,
    "preparations": 0.02,
    "records": 0.08,
    "manifests": 0.08,
    "mat": 0.09,
    "models": 0.01,
    "weights": 0.007,
    "originals": 0.007,
    "checkpoints": 0.006,
}
MANY = 10_000
"""A run of 100,000 takes about twenty minutes."""


def check(counts, faults):
    print(*(f"{kind:14s}{what:32s}{number:8d}" for (kind, what), number in sorted(counts.items())))
    assert not faults, "\n\n".join(faults[:10])


def test_damaged_pictures_and_data_sets():
    counts, faults = run_cases(FEW)
    check(counts, faults)
    # So not all is refused at the door.
    assert counts["pictures", "read"] > 200 and counts["records", "read"] > 20
    assert counts["mat", "blocks read"] and counts["mat", "picture read"]


@pytest.mark.slow
def test_damaged_models_and_checkpoints():
    counts, faults = run_cases(FEW_MODELS)
    check(counts, faults)
    assert counts["models", "ModelError"] and counts["checkpoints", "step 9"]


@pytest.mark.slow
def test_many_cases():
    """The cases after those of the tests above."""
    assert {*SHARES} == {*KINDS}
    number = int(os.environ.get("CBSN_FUZZ_CASES", MANY))
    cases = {kind: round(number * share) for kind, share in SHARES.items()}
    check(*run_cases(cases, first=max(FEW.values())))
