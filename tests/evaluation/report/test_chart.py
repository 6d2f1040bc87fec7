import pytest

from cbsn.evaluation.report.charts import Chart


def _inside(chart):
    return all(
        Chart.LEFT <= x <= Chart.RIGHT and Chart.TOP <= y <= Chart.BOTTOM
        for _, points in chart.lines
        for x, y in [*points, *((x, Chart.TOP) for x, _ in chart.x_ticks)]
    )


def test_a_line_goes_from_edge_to_edge():
    chart = Chart.plot("loss", {"blind": [(100, 2), (200, 1)]}, (100, 200))
    assert chart.label == "loss" and _inside(chart)
    ((name, [(left, top), (right, bottom)]),) = chart.lines
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
    assert _inside(chart) and chart.x_ticks and len(chart.lines[0][1]) == 1


def test_long_curves_are_thinned():
    chart = Chart.plot("loss", {"a": [(i, i % 2) for i in range(10_000)]}, (0, 9999))
    ((_, points),) = chart.lines
    assert len(points) == 300 and _inside(chart)


def test_steps_are_whole():
    chart = Chart.plot("loss", {"a": [(1, 1), (2, 2)]}, (1, 2))
    assert [text for _, text in chart.x_ticks] == ["1", "2"]
