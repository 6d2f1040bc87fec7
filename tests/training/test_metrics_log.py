import json

from cbsn.training.logging import MetricsLog


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_step_is_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write({"step": 1, "total": 0.5})
    log.write({"step": 2, "total": float("nan"), "speed": float("inf")})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "total": 0.5},
        {"step": 2, "total": None, "speed": None},
    ]


def test_a_run_that_goes_on_takes_back_what_will_come_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (10, 20, 30):
        log.write({"step": step})
    with path.open("a") as file:
        file.write('{"step": 40, "tot')
    MetricsLog(path, 20).write({"step": 30})
    assert _steps(path) == [10, 20, 30]


def test_half_a_line_is_no_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n\xff\xfe{"st\n3\n')
    MetricsLog(path, 100).write({"step": 20})
    assert _steps(path) == [10, 20]
