"""How long denoising will take, predicted from its beginning."""

import pytest

from cbsn.inference.forecast import Forecast
from cbsn.progress import shown


@pytest.fixture
def said(capsys):
    """What is said on a machine that takes some seconds for two megapixels, in tiles of a tenth."""

    def say(seconds, *, pictures=3, fast_share=None, preparation=0.0, tiles=10):
        clock = iter([preparation + seconds * k / tiles for k in range(1, tiles + 1)])
        forecast = Forecast(pictures, 2_000_000, fast_share, lambda: next(clock))
        with shown():
            for _ in range(tiles):
                forecast.count(2_000_000 / tiles)
        return capsys.readouterr().out

    return say


def test_minutes_pictures_and_megapixels_are_said(said):
    assert said(800) == "About 13 minutes for 3 pictures of 2 megapixels.\n"
    text = said(800, fast_share=0.3)
    assert text.endswith(" of 2 megapixels; --quality fast takes about 4 minutes.\n")
    assert said(100, fast_share=0.3).endswith("; --quality fast takes less than a minute.\n")
    assert said(130, pictures=1).startswith("About 2 minutes for 1 picture of")
    assert said(8000).startswith("About 2 hours for")
    assert said(59, fast_share=0.3) == ""


def test_preparation_is_no_part_of_the_speed(said):
    assert said(30, preparation=60) == ""
    assert said(120, preparation=600).startswith("About 2 minutes")


def test_some_seconds_must_have_passed(said):
    assert said(120, tiles=1) == ""
    assert said(120, tiles=1000).startswith("About 2 minutes")
    assert said(2.9, tiles=1000) == ""
