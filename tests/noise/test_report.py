from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbsn.errors import ConfigError
from cbsn.noise.advice import advise
from cbsn.noise.estimate import estimate_noise
from cbsn.noise.report import check_figure, draw_noise


@pytest.fixture(scope="module")
def estimates(walls, add_noise):
    """By number of channels."""
    random = np.random.default_rng(0)
    colour = [np.repeat(wall, 3, axis=2) for wall in walls]
    return {
        pictures[0].shape[2]: estimate_noise(add_noise(pictures, 10, random))
        for pictures in (walls, colour)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_figure_is_drawn(channels, estimates, tmp_path):
    path = tmp_path / "noise.png"
    check_figure(path)
    draw_noise(estimates[channels], advise(estimates[channels]), path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape == (1066, 1430, 3)
    for panel in (pixels[:533, :715], pixels[:533, 715:], pixels[533:, :715], pixels[533:, 715:]):
        assert (panel < 100).any()
    assert [*tmp_path.iterdir()] == [path]


def test_other_format(estimates, tmp_path):
    path = tmp_path / "noise.svg"
    check_figure(path)
    draw_noise(estimates[1], advise(estimates[1]), path)
    assert "<svg" in path.read_text()


def test_folder_that_is_gone(estimates, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        draw_noise(estimates[1], advise(estimates[1]), tmp_path / "gone" / "a.png")


def test_format_is_told_by_the_suffix():
    with pytest.raises(ConfigError, match=r"\.png, \.pdf, \.svg. Received: --figure noise.gif"):
        check_figure(Path("noise.gif"))
