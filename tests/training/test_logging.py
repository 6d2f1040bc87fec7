import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cbsn.training.logging import Reporter

VALUES = {"total": 1.5, "blind": np.nan, "learning_rate": 1e-3, "skipped": 1.0, "stop": 0.0}


def _metrics():
    """Not made on import, as the first tensor takes the whole GPU if it is not set up yet."""
    return {name: tf.constant(value) for name, value in VALUES.items()}


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_printed_and_written(tmp_path, capsys):
    reporter = Reporter(tmp_path, 0, batch_size=4)
    reporter.log(10, _metrics(), skipped=2, bad_records=3)
    reporter.close()
    printed = capsys.readouterr().out
    assert "step 10: total 1.5000, blind nan, lr 1.00e-03" in printed
    assert "2 steps skipped" in printed
    (line,) = _lines(tmp_path)
    expected = {"step": 10, "total": 1.5, "blind": None, "skipped_steps": 2, "bad_records": 3}
    assert {key: line[key] for key in expected} == expected
    assert line["learning_rate"] == pytest.approx(1e-3)
    assert line["patches_per_second"] == pytest.approx(4 * line["steps_per_second"])
    assert line["peak_memory_gib"] > 0
    assert "stop" not in line


def test_a_validation_is_in_the_next_line_only(tmp_path):
    reporter = Reporter(tmp_path, 0, batch_size=4)
    picture = np.zeros((8, 8, 3), np.uint8)
    reporter.validation(10, 31.5, [(picture, picture, picture)])
    for step in (10, 20):
        reporter.log(step, _metrics(), skipped=0, bad_records=0)
    assert [line.get("validation_psnr") for line in _lines(tmp_path)] == [31.5, None]


def test_pauses_do_not_count(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("cbsn.training.logging.time", SimpleNamespace(monotonic=lambda: now))
    reporter = Reporter(tmp_path, 0, batch_size=4)
    now += 3
    with reporter.pause():
        now += 1000
    now += 2
    reporter.log(10, _metrics(), skipped=0, bad_records=0)
    assert _lines(tmp_path)[0]["steps_per_second"] == pytest.approx(10 / 5)


def _report(folder, start, *steps):
    reporter = Reporter(folder, start, batch_size=1)
    for step in steps:
        reporter.log(step, _metrics(), skipped=0, bad_records=0)
    reporter.close()


def test_a_run_that_goes_on_takes_back_what_will_come_again(tmp_path):
    _report(tmp_path, 0, 10, 20, 30)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "tot')
    _report(tmp_path, 20, 30)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30]


def test_half_a_line_is_no_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 10}\n\xff\xfe{"st\n3\n')
    _report(tmp_path, 100, 120)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 120]


def test_events_are_those_of_tensorboards_own_functions(tmp_path):
    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    reporter = Reporter(tmp_path, 0, batch_size=4)
    reporter.validation(10, 31.5, [(picture, picture)])
    reporter.close()
    with tf.summary.create_file_writer(str(tmp_path / "own")).as_default(10):
        tf.summary.scalar("validation/psnr", 31.5)
        unit = np.concatenate([picture, picture], axis=1)[None] / np.float32(255)
        tf.summary.image("validation/0", unit)
        tf.summary.flush()
    written, expected = (
        [
            (event.step, value.tag, value.metadata, value.tensor)
            for path in sorted((tmp_path / folder).iterdir())
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
        ]
        for folder in ("events", "own")
    )
    assert written == expected
    assert len(written) == 2


def test_writing_events_imports_nothing_that_chatters(run_python):
    done = run_python("""
        import sys
        import numpy as np
        from cbsn.importing import import_tensorflow
        import_tensorflow(alone=True)
        from pathlib import Path
        from cbsn.training.logging import Reporter
        reporter = Reporter(Path("."), 0, batch_size=1)
        picture = np.zeros((8, 8, 3), np.uint8)
        reporter.validation(1, 31.5, [(picture, picture)])
        reporter.close()
        print("tensorflow._api.v2.compat.v2" in sys.modules)
    """)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
