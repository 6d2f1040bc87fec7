import numpy as np
import pytest

from cbsn.errors import ConfigError, PipelineError
from cbsn.images.image_files import write_picture
from cbsn.images.picture import Picture
from cbsn.inference.beam.job import parse_beam_flags
from cbsn.inference.beam.pipeline import DenoisingModelHandler, Work, run_pipeline
from cbsn.inference.options import DenoiseOptions


@pytest.fixture
def works(tmp_path):
    """Two pictures, of 1 and 2 rows."""
    for rows in (1, 2):
        picture = Picture(np.full((rows, 5, 3), 7, np.uint8), "PNG")
        write_picture(tmp_path / f"{rows}.png", picture)
    return [Work(str(tmp_path / f"{rows}.png"), "") for rows in (1, 2)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory; try a smaller --tile"),
        (OSError("the disk is gone"), "the disk is gone"),
        (KeyError("a bug"), "KeyError: 'a bug'"),
    ],
)
def test_what_fails_does_not_stop_the_others(works, error, reason, caplog):
    def denoise(image, *, in_place, white):
        if len(image) == 1:
            raise error
        return 255 - image

    denoise.scaling = None
    handler = DenoisingModelHandler("", DenoiseOptions(), max_bytes=100)
    first, second = handler.run_inference(works, denoise)
    assert (first.example, first.inference) == (works[0], reason)
    assert second.example == works[1]
    assert (second.inference.pixels == 248).all()
    # Only of what was not foreseen.
    assert ("Traceback" in caplog.text) == isinstance(error, KeyError)


def test_the_limit_is_the_pixels_memory(works):
    def denoise(image, **options):
        return image

    denoise.scaling = None
    for limit, fits in ((30, True), (29, False)):
        handler = DenoisingModelHandler("", DenoiseOptions(), max_bytes=limit)
        [result] = handler.run_inference(works[1:], denoise)
        assert isinstance(result.inference, Picture) == fits


def test_one_model_in_each_process_and_one_picture_at_a_time():
    handler = DenoisingModelHandler("", DenoiseOptions(), max_bytes=100)
    assert not handler.share_model_across_processes()
    assert handler.batch_elements_kwargs() == {"max_batch_size": 1}


def run(model, output, flags=()):
    handler = DenoisingModelHandler(str(model), DenoiseOptions(tile="16"), max_bytes=10**6)
    works = [Work(str(output / "none.png"), str(output / "target.png"))]
    return run_pipeline(parse_beam_flags(flags), works, handler, str(output))


def test_a_failing_pipeline_is_told_in_a_line(tmp_path):
    with pytest.raises(PipelineError, match=r"failed: No model at .* again to continue") as info:
        run(tmp_path / "none", tmp_path)
    assert "\n" not in str(info.value)
    assert info.value.status == 1


def test_an_unknown_runner(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="Unexpected pipeline runner: Nobody"):
        run(tiny_model, tmp_path, ["--runner", "Nobody"])


def test_nothing_is_counted_without_waiting(tiny_model, tmp_path):
    assert run(tiny_model, tmp_path, ["--no_wait_until_finish"]) is None
