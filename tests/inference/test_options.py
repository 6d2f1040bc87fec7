import numpy as np
import pytest

from cbsn.colors import LUMA
from cbsn.errors import ConfigError
from cbsn.inference.options import DenoiseOptions, Strength


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf"), -1])
def test_what_is_no_share_is_refused(value):
    words = rf"--strength takes a number from 0 to 1\. Received: --strength {value}"
    with pytest.raises(ConfigError, match=words):
        Strength(value)
    words = rf"--color_strength takes .*Received: --color_strength {value}"
    with pytest.raises(ConfigError, match=words):
        Strength(1, value)


@pytest.mark.parametrize("hole", [-1, 4, 129, 3.0, "5"])
def test_what_is_no_hole_is_refused(hole):
    words = rf"^--hole must be odd and at most 127, .*or 0 for none\. Received: --hole {hole}$"
    with pytest.raises(ConfigError, match=words):
        DenoiseOptions(hole=hole)


def test_colour_is_as_luma_unless_told():
    assert Strength(0.5) == Strength(0.5, 0.5)
    assert Strength() == Strength(1, 1)
    assert Strength().is_whole
    for less in (Strength(0), Strength(0, 1), Strength(1, 0), Strength(0.5)):
        assert not less.is_whole


@pytest.mark.parametrize("shares", [(0.5, 0.5), (1, 0), (0, 1), (0.3, 0.8)])
def test_luma_and_colour_are_removed_by_their_shares(random, shares):
    noisy, denoised = random.random((2, 5, 7, 3))
    removed = noisy - Strength(*shares).blend(noisy, denoised)
    wanted = noisy - denoised
    # Of numbers up to 1 a few roundings of float64.
    luma, wanted_luma = removed @ LUMA, wanted @ LUMA
    np.testing.assert_allclose(luma, shares[0] * wanted_luma, atol=1e-14)
    color, wanted_color = removed - luma[..., None], wanted - wanted_luma[..., None]
    np.testing.assert_allclose(color, shares[1] * wanted_color, atol=1e-14)


def test_gray_has_luma_only(random):
    noisy, denoised = random.random((2, 5, 7, 1))
    blended = Strength(0.25, 1).blend(noisy, denoised)
    np.testing.assert_allclose(blended, 0.75 * noisy + 0.25 * denoised, atol=1e-15)


def test_gray_pixels_of_a_colour_picture_are_blended_as_gray(random):
    noisy, denoised = random.random((2, 5, 7, 1))
    blended = Strength(0.25, 1).blend(noisy.repeat(3, -1), denoised.repeat(3, -1))
    expected = Strength(0.25).blend(noisy, denoised).repeat(3, -1)
    np.testing.assert_allclose(blended, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": -1}, "tile must be auto, .*-1"),
        ({"tile": "big"}, "tile must be auto, .*'big'"),
        ({"rounding": "up"}, "round or truncate.*'up'"),
        ({"seed": -1}, "--seed .*-1"),
        ({"seed": 2**64}, f"--seed .*{2**64}"),
        ({"strength": 1.5}, "--strength takes a number from 0 to 1"),
        ({"color_strength": -1}, "--color_strength takes a number from 0 to 1"),
    ],
)
def test_unusable_options_say_what_was_received(options, words):
    with pytest.raises(ConfigError, match=words):
        DenoiseOptions(**options)


def test_options_are_taken_out_of_flags():
    flags = {"tile": "48", "seed": 3, "savepath": "out"}
    assert DenoiseOptions.pop(flags) == DenoiseOptions(tile="48", seed=3)
    assert flags == {"savepath": "out"}
