import json

import pytest

from cbsn.evaluation.report.charts import VALIDATION, Chart, read_curves
from cbsn.training.logging import Reporter


def _inside(chart):
    return all(
        Chart.LEFT <= x <= Chart.RIGHT and Chart.TOP <= y <= Chart.BOTTOM
        for points in chart.lines.values()
        for x, y in [*points, *((x, Chart.TOP) for x, _ in chart.x_ticks)]
    )


def test_a_line_goes_from_edge_to_edge():
    chart = Chart.plot("loss", {"blind": [(100, 2), (200, 1)]}, (100, 200))
    assert chart.label == "loss" and _inside(chart)
    ((name, [(left, top), (right, bottom)]),) = chart.lines.items()
    assert (name, left, right) == ("blind", Chart.LEFT, Chart.RIGHT)
    assert top < bottom
    assert [text for _, text in chart.x_ticks] == ["100", "120", "140", "160", "180", "200"]
    assert [text for _, text in chart.y_ticks] == ["1", "1.5", "2"]
    assert dict(map(reversed, chart.y_ticks))["1"] == bottom


def test_values_far_apart_are_on_a_log_scale():
    curves = {"a": [(0, 1), (10, 0.1)], "b": [(0, 0.01)]}
    chart = Chart.plot("loss", curves, (0, 10))
    assert chart.label == "loss, log scale" and _inside(chart)
    heights = {text: y for y, text in chart.y_ticks}
    assert heights["0.1"] - heights["1"] == pytest.approx(heights["0.01"] - heights["0.1"], abs=0.2)
    assert "log" not in Chart.plot("loss", {"a": [(0, -1), (1, 900)]}, (0, 1)).label


@pytest.mark.parametrize("value", [0, -3.5, 1e-12, 1e12])
def test_a_single_point_is_drawn(value):
    chart = Chart.plot("loss", {"a": [(7, value)]}, (7, 7))
    assert _inside(chart) and chart.x_ticks and len(chart.lines["a"]) == 1


def test_long_curves_are_thinned():
    chart = Chart.plot("loss", {"a": [(i, i % 2) for i in range(10_000)]}, (0, 9999))
    assert len(chart.lines["a"]) == 300 and _inside(chart)


def test_steps_are_whole():
    chart = Chart.plot("loss", {"a": [(1, 1), (2, 2)]}, (1, 2))
    assert [text for _, text in chart.x_ticks] == ["1", "2"]


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
