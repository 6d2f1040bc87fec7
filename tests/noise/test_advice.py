import numpy as np
import pytest

from cbsn.noise.advice import advise, limits
from cbsn.noise.estimate import NoiseEstimate
from cbsn.recipes import RECIPES


def _estimate(horizontal, vertical=None, *, error=0.001, clipped=(0, 0), blocks=1000):
    """With the correlations given from 1 px on, 0 further away."""
    correlation = np.zeros((4, 12))
    correlation[0, : len(horizontal)] = horizontal
    vertical = horizontal if vertical is None else vertical
    correlation[1, : len(vertical)] = vertical
    plane = np.zeros((29, 29))
    plane[14, 14] = 1
    plane[14, 15:27] = plane[14, 2:14][::-1] = correlation[0]
    plane[15:27, 14] = plane[2:14, 14][::-1] = correlation[1]
    return NoiseEstimate(
        level=np.array([10.0]),
        spread=np.array([[9.0, 11.0]]),
        slope=np.zeros(1),
        floor=np.array([100.0]),
        misfit=np.zeros(1),
        points=[np.array([[100.0, 10.0]])],
        correlation=correlation,
        deviation=np.full((4, 12), error),
        channel_correlation=correlation[None],
        correlation_map=plane,
        clipped=np.array([clipped]),
        histogram=np.full((1, 64), 1 / 64),
        pictures=10,
        blocks=blocks,
        of_blocks=5000,
        source="flat blocks",
    )


@pytest.mark.parametrize(
    ("horizontal", "vertical", "stride"),
    [
        ([], None, 1),
        ([0.04, 0.01], None, 1),
        ([0.06], None, 2),
        ([-0.1], None, 2),
        ([0.46, 0.07, 0.019, 0.017, 0.002, 0.005], [0.46, 0.07, 0.017, 0.014], 5),
        ([0.54, 0.16, 0.06, 0.03], None, 5),
        ([0.6, 0.15, 0.005, 0.006], None, 3),
        ([0.67, 0.33], [0, 0], 3),
        ([0, 0], [0.67, 0.33], 3),
        ([0.5, 0.015], [0.5, -0.015], 2),
        ([0.7, 0.1, -0.04], None, 4),
        ([0.02, 0.3], None, 3),
        ([0.72, 0.39, 0.23, 0.16, 0.10, 0.07, 0.046, 0.03], None, 9),
    ],
)
def test_stride(horizontal, vertical, stride):
    advice = advise(_estimate(horizontal, vertical))
    assert advice.stride_b == stride
    assert advice.recipe == ("n2v-unet" if stride == 1 else "cbsn")
    assert advice.stride_i == (1 if stride == 1 else 2)
    assert advice.recipe in RECIPES
    assert ("white" if stride == 1 else "correlated") in advice.reasons[0]
    assert "uncertain" not in " ".join(advice.reasons)


def test_chance_does_not_count():
    noisy = [0.5, 0.1, 0.03, 0, 0, 0, 0, 0.012]
    assert advise(_estimate(noisy)).stride_b == 9
    assert advise(_estimate(noisy, error=0.0045)).stride_b == 5
    assert limits(_estimate(noisy, error=0.0045))[7] == pytest.approx(4 * 0.0045 / 2**0.5)
    assert limits(_estimate(noisy))[7] == 0.01
    assert limits(_estimate(noisy))[0] == 0.05


def test_next_to_what_counts_less_is_enough():
    correlation = [0.5, 0.1, 0.03, 0.021, 0.016]
    assert advise(_estimate(correlation, error=0.008)).stride_b == 6
    assert advise(_estimate([*correlation[:3], 0, *correlation[3:]], error=0.008)).stride_b == 5


def test_few_blocks_are_uncertain():
    few = _estimate([0.5, 0.2], error=0.01, blocks=23)
    advice = advise(few)
    assert advice.stride_b == 5
    assert "below 0.028 cannot be detected" in advice.reasons[1]
    assert "uncertain, because it comes from only 23 blocks" in advice.reasons[2]
    white = advise(_estimate([], error=0.01, blocks=23))
    assert (white.stride_b, white.recipe) == (1, "n2v-unet")
    assert "uncertain" in white.reasons[-1]


def test_not_gone():
    advice = advise(_estimate(np.linspace(0.9, 0.3, 12)))
    assert advice.stride_b == 12
    assert "still correlated at 12 px" in advice.reasons[1]
    assert "scale the pictures down" in advice.reasons[1]
    far = advise(_estimate([0.7, 0.4, 0.2, 0.15, 0.1, 0.07]))
    assert far.stride_b == 7
    assert "every 7th pixel" in far.reasons[1]


def test_clipping_is_told():
    assert "clip" not in " ".join(advise(_estimate([], clipped=(0.04, 0.05))).reasons)
    dark = advise(_estimate([], clipped=(0.2, 0)))
    assert "20% of the values of gray are at 0:" in dark.reasons[-1]
    assert "too bright" in dark.reasons[-1]
    bright = advise(_estimate([], clipped=(0, 0.06)))
    assert "6% of the values of gray are at full scale" in bright.reasons[-1]
    assert "too dark" in bright.reasons[-1]


def test_lines():
    advice = advise(_estimate([0.5, 0.2]))
    first, *others = advice.lines()
    assert first == "Train with cbsn train --recipe cbsn --stride_b 3 --stride_i 2"
    assert others == [f"- {reason}" for reason in advice.reasons]
    assert advise(_estimate([])).lines()[0] == "Train with cbsn train --recipe n2v-unet"
