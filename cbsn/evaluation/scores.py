"""The figures of one denoiser, and how they are shown."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cbsn.evaluation.diagnosis import Diagnosis

_METRICS = {"psnr": ("PSNR", 2, 3), "ssim": ("SSIM", 4, 4), "lpips": ("LPIPS", 4, 4)}
"""By name: heading, decimals shown, decimals kept."""

_NONE = "–"


@dataclasses.dataclass(frozen=True)
class Scores:
    """How close a denoiser came to the clean pictures, and how fast.

    Args:
        method: str, name of the denoiser.
        parameters: int, of its network; None if it has none.
        names: of the pictures.
        psnr: of each picture, in dB; infinite where equal. Empty without clean pictures.
        ssim: of each picture; likewise.
        lpips: of each picture, None where it was not taken; likewise.
        seconds: that each picture took; empty where that says nothing.
        pixels: of each picture.
        peak_gib: float, largest memory of the process meanwhile, with all that it had loaded
            before; None where that says nothing.
        diagnosis: what can be told without clean pictures, or None.
    """

    method: str
    parameters: int | None
    names: Sequence[str]
    psnr: Sequence[float]
    ssim: Sequence[float]
    lpips: Sequence[float | None]
    seconds: Sequence[float]
    pixels: Sequence[int]
    peak_gib: float | None = None
    diagnosis: Diagnosis | None = None

    def mean(self, metric: str) -> float | None:
        """Returns the mean of `"psnr"`, `"ssim"` or `"lpips"`; None where it was never taken."""
        taken = [value for value in getattr(self, metric) if value is not None]
        return float(np.mean(taken)) if taken else None

    @property
    def megapixels_per_second(self) -> float | None:
        """Of all pictures together; None where nothing was timed."""
        return sum(self.pixels) / 1e6 / sum(self.seconds) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON: means, the median time, and those of each picture.

        Metrics that were not taken, and an infinite PSNR, are None.
        """
        speed = self.megapixels_per_second
        return {
            "method": self.method,
            "parameters": self.parameters,
            **{name: _rounded(self.mean(name), kept) for name, (_, _, kept) in _METRICS.items()},
            "seconds": _rounded(float(np.median(self.seconds)), 4) if self.seconds else None,
            "megapixels_per_second": _rounded(speed, 5),
            "peak_gib": _rounded(self.peak_gib, 3),
            "diagnosis": self.diagnosis.to_dict() if self.diagnosis else None,
            "images": [self.of_picture(i) for i in range(len(self.names))],
        }

    def of_picture(self, index: int) -> dict[str, str | float | int | None]:
        """Returns the name and the figures of one picture; those not taken are None."""
        figures = {name: (getattr(self, name), kept) for name, (_, _, kept) in _METRICS.items()}
        figures["seconds"] = (self.seconds, 4)
        return {
            "image": self.names[index],
            **{
                name: _rounded(values[index], kept) if values else None
                for name, (values, kept) in figures.items()
            },
            "pixels": self.pixels[index],
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
        timed = len(self.seconds) > 0
        cells["s/image"] = f"{np.median(self.seconds):.3f}" if timed else _NONE
        cells["MP/s"] = f"{self.megapixels_per_second:.3g}" if timed else _NONE
        cells["peak GiB"] = _NONE if self.peak_gib is None else f"{self.peak_gib:.2f}"
        return cells

    def caption(self, index: int) -> str:
        """Returns the metrics of one picture in a few words; empty if there are none."""
        words = []
        for name, (heading, decimals, _) in _METRICS.items():
            values = getattr(self, name)
            if values and values[index] is not None:
                words.append(f"{heading} {values[index]:.{decimals}f}")
        return ", ".join(words)


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns a table in plain text, a line for each row, all with the same headings.

    Args:
        rows: at least one, such as `Scores.cells`.
    """
    lines = [[*rows[0]], *([*row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the same as a Markdown table."""
    lines = [[*rows[0]], ["---", *["--:"] * (len(rows[0]) - 1)], *([*r.values()] for r in rows)]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _rounded(value: float | None, decimals: int) -> float | None:
    """None for what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else round(value, decimals)
