"""What was found out about the noise of pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

LAGS = 12
"""Largest distance in pixels at which correlation is looked for."""

DIRECTIONS = ("horizontal", "vertical", "diagonal ↘", "diagonal ↙")
"""Of the correlation; a diagonal step is one pixel down and one sideways."""

CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}
"""Names of the channels, by their number."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise of a set of pictures with C channels (1 or 3).

    Intensities and standard deviations are in 8-bit levels (of 255), whatever the depth of the
    pictures. Where pixels are clipped, there is no noise to see: such parts do not count.

    Args:
        level: [C], standard deviation σ in the median picture.
        spread: [C, 2], between which standard deviations 80 % of the pictures are.
        slope: [C], a of the line variance = a · intensity + b; 255 / a are the photons of a white
            pixel, if light is all that the noise depends on.
        floor: [C], b of it: the variance of the noise that does not depend on the light.
        misfit: [C], by how much σ is off the line, relative to it, as a root mean square.
        points: of each channel [n, 2], intensities and σ there, by increasing intensity.
        correlation: [4, LAGS], of pixels 1, 2, … steps apart along `DIRECTIONS`, all channels
            together.
        deviation: [4, LAGS], its standard error.
        channel_correlation: [C, 4, LAGS], of each channel.
        correlation_map: [29, 29], of pixels up to 14 down and to the right; 1 in the middle.
        clipped: [C, 2], share of the pixels at 0 and at full scale.
        histogram: [C, 64], share of the pixels by value, from 0 to full scale.
        pictures: int, how many were looked at.
        blocks: int, of how many blocks of 32 × 32 pixels, which overlap by half, this is.
        of_blocks: int, how many there are.
        source: str, what the noise was seen in.
    """

    level: np.ndarray
    spread: np.ndarray
    slope: np.ndarray
    floor: np.ndarray
    misfit: np.ndarray
    points: Sequence[np.ndarray]
    correlation: np.ndarray
    deviation: np.ndarray
    channel_correlation: np.ndarray
    correlation_map: np.ndarray
    clipped: np.ndarray
    histogram: np.ndarray
    pictures: int
    blocks: int
    of_blocks: int
    source: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels."""
        return CHANNELS[len(self.level)]

    def lines(self) -> list[str]:
        """Returns tables in plain text."""
        plural = "" if self.pictures == 1 else "s"
        low, high = self.spread.T
        black, white = self.clipped.T
        channels = [
            ("", self.channels),
            ("σ, of 255", [f"{value:.2f}" for value in self.level]),
            ("  of 80 % of the pictures", [f"{a:.1f}–{b:.1f}" for a, b in self.spread]),
            ("variance = a·I + b: a", [f"{value:.3f}" for value in self.slope]),
            ("  b", [f"{value:.2f}" for value in self.floor]),
            ("  σ is off that by", [f"{value:.0%}" for value in self.misfit]),
            ("pixels at 0", [f"{value:.2%}" for value in black]),
            ("pixels at full scale", [f"{value:.2%}" for value in white]),
        ]
        if np.allclose(low, high):
            del channels[2]
        rows = [*zip(DIRECTIONS, self.correlation, strict=True)]
        rows.append(("standard error", np.sqrt(np.mean(self.deviation**2, axis=0))))
        correlations = [
            ("correlation at px", [str(lag) for lag in range(1, LAGS + 1)]),
            # Adding 0 makes −0 positive.
            *(
                (name, [f"{value:.3f}" for value in np.round(values, 3) + 0])
                for name, values in rows
            ),
        ]
        return [
            f"Noise of {self.pictures} picture{plural}, seen in {self.source}: "
            f"{self.blocks:,} of {self.of_blocks:,} blocks of 32 × 32 pixels",
            "",
            *_table(channels, 26, 12),
            "",
            *_table(correlations, 17, 7),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON, by the names of the attributes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}


def _table(rows: Sequence[tuple[str, Sequence[str]]], first: int, others: int) -> list[str]:
    return [
        name.ljust(first) + "".join(str(cell).rjust(others) for cell in cells)
        for name, cells in rows
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 5).tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
