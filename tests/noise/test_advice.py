import dataclasses

import numpy as np
import pytest

from cbsn.noise.advice import advise
from cbsn.noise.estimate import NoiseEstimate
from cbsn.noise.limits import limits
from cbsn.noise.lines import LineNoise
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


@pytest.mark.parametrize(
    ("horizontal", "vertical", "mask"),
    [
        ([0.67, 0.33], [0, 0], "x:2"),
        ([0, 0], [0.67, 0.33], "y:2"),
        ([0.5], None, "cross:1"),
        ([0.5, 0.2], None, "cross:2"),
        # Noise of more than 2 px in both directions is left to sub-images.
        ([0.46, 0.07, 0.019, 0.017, 0.002, 0.005], [0.46, 0.07, 0.017, 0.014], "point"),
        ([0.54, 0.16, 0.06, 0.03], None, "point"),
        ([0.04, 0.01], None, "point"),
    ],
)
def test_masks_are_offered_beside_strides(horizontal, vertical, mask):
    advice = advise(_estimate(horizontal, vertical))
    assert advice.mask == mask
    masks = [line for line in advice.lines() if "--struct_mask" in line]
    if mask == "point":
        assert not masks
    else:
        first, _, third = advice.lines()[:3]
        assert first.startswith("Train with cbsn train --recipe cbsn --stride_b ")
        assert masks == [third]
        assert third == f"or with cbsn train --recipe n2v-unet --struct_mask {mask}"
        assert advice.reasons[-1].endswith("A mask hides the pixels that share a pixel's noise.")


def test_colours_are_offered_no_mask_in_both_directions():
    """Noise of photographs is demosaiced, and reaches further than can be seen in each of them."""
    colours = dataclasses.replace(_estimate([0.5]), level=np.full(3, 10.0))
    assert advise(colours).mask == "point"
    one_way = dataclasses.replace(_estimate([0.67, 0.33], [0]), level=np.full(3, 10.0))
    assert advise(one_way).mask == "x:2"


def test_noise_along_a_diagonal_needs_a_mask():
    """In quotes, as the shell would take the semicolon."""
    estimate = _estimate([])
    estimate.correlation[2, 0] = 0.5
    estimate.correlation_map[15, 15] = estimate.correlation_map[13, 13] = 0.5
    first, second = advise(estimate).lines()
    assert first == "Train with cbsn train --recipe n2v-unet --struct_mask '1,1;-1,-1'"
    assert "along diagonals only: 0.500" in second


def test_line_noise_is_to_be_repaired_first():
    rows = LineNoise("rows", 0.1, 0.01, 4.0, 0.0)
    columns = LineNoise("columns", 0.1, 0.01, 5.0, 0.9)
    advice = advise(_estimate([]), [rows, columns])
    first, *reasons = advice.lines()
    assert first == "Train with cbsn train --recipe n2v-unet --repair rows,columns"
    assert "- Line noise, new in each plane: each row has an offset" in reasons[2]
    assert "0.40 times" in reasons[2]
    assert "- Column noise, the same in all planes: the camera's: each column" in reasons[3]
    assert "0.50 times" in reasons[3]
    assert "--repair rows,columns removes the offsets" in reasons[4]
    both = advise(_estimate([0.67, 0.33], [0]), [rows])
    assert both.lines()[1:3] == [
        "or with cbsn train --recipe tmbsn --hole 5 --repair rows",
        "or with cbsn train --recipe n2v-unet --struct_mask x:2 --repair rows",
    ]


def test_lines():
    advice = advise(_estimate([0.5, 0.2, 0.1]))
    first, second, *others = advice.lines()
    assert first == "Train with cbsn train --recipe cbsn --stride_b 4 --stride_i 2"
    assert second == "or with cbsn train --recipe tmbsn --hole 7"
    assert others == [f"- {reason}" for reason in advice.reasons]
    assert advise(_estimate([])).lines()[0] == "Train with cbsn train --recipe n2v-unet"


def test_outliers_are_to_be_repaired_first():
    lines = advise(_estimate([0.67, 0.33], [0, 0]), outliers=True).lines()
    commands = [line for line in lines if "cbsn train" in line and not line.startswith("-")]
    assert commands and all(each.endswith(" --repair pixels") for each in commands)
