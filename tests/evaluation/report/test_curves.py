import json

import pytest

from cbsn.evaluation.report.charts import VALIDATION, read_curves
from cbsn.training.logging import Reporter


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "metrics.jsonl"
        path.write_text("\n".join(map(str, lines)))
        return path

    return write


def test_broken_lines_and_values_are_left_out(write):
    path = write(
        '{"step": 20, "total": 3, "blind": 2, "skipped_steps": 0}',
        '{"step": 10, "total": 4.5, "blind": null, "validation_psnr": 30.5}',
        '{"step": 30, "total": NaN, "blind": Infinity, "self": "2", "kind": true}',
        '{"step": null, "total": 7}',
        '{"total": 8}',
        f'{{"step": 40, "total": 1{"0" * 400}}}',
        "[1, 2]",
        "12",
        "",
        '{"step": 50, "tot',
    )
    assert read_curves(path) == {
        "total": [(10, 4.5), (20, 3)],
        "blind": [(20, 2)],
        VALIDATION: [(10, 30.5)],
    }


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "blind": 2}\n\xff\xfe\x00{"step"')
    assert read_curves(path) == {"blind": [(1, 2)]}


def test_a_total_of_one_term_is_not_shown_twice(write):
    lines = [json.dumps({"step": i, "total": i / 2, "blind": i / 2}) for i in range(3)]
    assert [*read_curves(write(*lines))] == ["blind"]


def test_what_a_run_writes_holds_no_other_names(tmp_path):
    """Should the reporter write something new, it must be said whether it is a loss."""
    reporter = Reporter(tmp_path, 0, batch_size=1)
    reporter.validation(1, 30.0, [])
    metrics = {"total": 3, "blind": 2, "learning_rate": 1e-3, "skipped": 0, "stop": 0}
    reporter.log(1, metrics, skipped=0, bad_records=0)
    reporter.close()
    assert [*read_curves(tmp_path / "metrics.jsonl")] == ["total", "blind", VALIDATION]


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_curves(tmp_path / "metrics.jsonl")
