"""The figures of one denoiser, and how they are shown."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_METRICS = {"psnr": ("PSNR", 2, 3), "ssim": ("SSIM", 4, 4), "lpips": ("LPIPS", 4, 4)}
"""By name: heading, decimals shown, decimals kept."""

_NONE = "–"


@dataclasses.dataclass(frozen=True)
class Scores:
    """How close a denoiser came to the clean pictures, and how fast.

    Args:
        method: str, name of the denoiser.
        parameters: int, of its network; None if it has none.
        psnr: of each picture, in dB; infinite where equal.
        ssim: of each picture.
        lpips: of each picture, None where it was not taken.
        seconds: that each picture took.
    """

    method: str
    parameters: int | None
    psnr: Sequence[float]
    ssim: Sequence[float]
    lpips: Sequence[float | None]
    seconds: Sequence[float]

    def mean(self, metric: str) -> float | None:
        """Returns the mean of `"psnr"`, `"ssim"` or `"lpips"`; None where it was never taken."""
        taken = [value for value in getattr(self, metric) if value is not None]
        return float(np.mean(taken)) if taken else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON: means, the median time, and those of each picture.

        Metrics that were not taken, and an infinite PSNR, are None.
        """
        metrics = {name: decimals for name, (_, _, decimals) in _METRICS.items()}
        return {
            "method": self.method,
            "parameters": self.parameters,
            **{name: _rounded(self.mean(name), decimals) for name, decimals in metrics.items()},
            "seconds": round(float(np.median(self.seconds)), 4),
            "images": {
                name: [_rounded(value, decimals) for value in getattr(self, name)]
                for name, decimals in {**metrics, "seconds": 4}.items()
            },
        }

    def cells(self) -> dict[str, str]:
        """Returns what a table shows, by the headings of its columns."""
        cells = {"method": self.method}
        for name, (heading, decimals, _) in _METRICS.items():
            mean = self.mean(name)
            if mean is not None:
                values = getattr(self, name)
                taken = sum(value is not None for value in values)
                part = "" if taken == len(values) else f" ({taken} of {len(values)})"
                cells[heading + part] = f"{mean:.{decimals}f}"
        cells["parameters"] = _NONE if self.parameters is None else f"{self.parameters:,}"
        cells["s/image"] = f"{np.median(self.seconds):.3f}"
        return cells


def format_table(scores: Sequence[Scores]) -> str:
    """Returns a table in plain text, a line for each denoiser.

    Args:
        scores: at least one, all of the same pictures and metrics.
    """
    rows = [each.cells() for each in scores]
    lines = [[*rows[0]], *([*row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _rounded(value: float | None, decimals: int) -> float | None:
    """None for what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else round(value, decimals)
