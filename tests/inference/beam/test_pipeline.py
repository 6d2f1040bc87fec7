import pytest

from cbsn.errors import ConfigError, PipelineError
from cbsn.inference.beam.job import parse_beam_flags
from cbsn.inference.beam.pipeline import DenoisingModelHandler, Work, run_pipeline


def run(model, output, flags=()):
    handler = DenoisingModelHandler(str(model), max_bytes=10**6, tile="16")
    works = [Work(str(output / "none.png"), str(output / "target.png"))]
    return run_pipeline(parse_beam_flags(flags), works, handler, str(output))


def test_a_failing_pipeline_is_told_in_a_line(tmp_path):
    with pytest.raises(PipelineError, match=r"failed: No model at .* goes on") as info:
        run(tmp_path / "none", tmp_path)
    assert "\n" not in str(info.value)
    assert info.value.status == 1


def test_an_unknown_runner(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="Unexpected pipeline runner: Nobody"):
        run(tiny_model, tmp_path, ["--runner", "Nobody"])


def test_nothing_is_counted_without_waiting(tiny_model, tmp_path):
    assert run(tiny_model, tmp_path, ["--no_wait_until_finish"]) is None
