"""Runs one method over all pictures, and measures the results."""

import csv
import dataclasses
import io
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from cbsn.devices import peak_memory, reset_peak_memory
from cbsn.errors import CbsnError, ConfigError, DataError, ImageError, check_texts
from cbsn.evaluation.comparison import FITTED, Comparison
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose, rounded
from cbsn.evaluation.methods import Method

METRICS = ("psnr", "ssim", "si_psnr", "micro_ssim")
"""What `--metrics` takes."""

_METRICS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 4),
    "si_psnr": ("SI-PSNR", 2),
    "micro_ssim": ("MicroSSIM", 4),
    "lpips": ("LPIPS", 4),
}
"""By name: the heading, and the decimals in tables."""

_DECIMALS = {  # in files
    "psnr": 3,
    "ssim": 4,
    "si_psnr": 3,
    "micro_ssim": 4,
    "lpips": 4,
    "seconds": 4,
}
_NONE = "–"


def parse_metrics(names: str) -> tuple[str, ...]:
    """Returns the metrics in a list of names from `METRICS`, separated by commas."""
    check_texts({"metrics": names})
    metrics = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in metrics:
        if name not in METRICS:
            hint = ", or --lpips" if name == "lpips" else ""
            raise ConfigError(
                f"--metrics takes any of {', '.join(METRICS)}, separated by commas{hint}. "
                f"Received: {name}"
            )
    return metrics


def fitting_note(metrics: Collection[str]) -> str:
    """Says which metrics fit the brightness of each picture; empty if none does."""
    fitted = [_METRICS[name][0] for name in FITTED if name in metrics]
    return f"Brightness fitted to each picture: {', '.join(fitted)}." if fitted else ""


@dataclasses.dataclass(frozen=True)
class Scores:
    """How close a denoiser came to the clean pictures, and how fast it was.

    Values for each picture are in the order of `names`. The metrics are empty without clean
    pictures, or if they were not asked for; times and memory are missing where they mean nothing
    (see `Method.computes`).
    """

    method: str
    parameters: int | None  # of its network, if it has one
    names: Sequence[str]
    psnr: Sequence[float | None]  # in dB, infinite if equal, None if undefined
    ssim: Sequence[float | None]  # None if undefined
    lpips: Sequence[float | None]  # 0 if equal, None if not computed
    seconds: Sequence[float]
    pixels: Sequence[int]
    peak_gib: float | None = None  # peak memory of the process, with all that it had loaded
    diagnosis: Diagnosis | None = None  # what can be judged without clean pictures
    si_psnr: Sequence[float | None] = ()  # in dB, infinite if the fit is exact, None if undefined
    micro_ssim: Sequence[float | None] = ()  # None if undefined

    def mean(self, metric: str) -> float | None:
        """Returns the mean of one of `METRICS` or `"lpips"`; None if it was never computed."""
        taken = [value for value in getattr(self, metric) if value is not None]
        return float(np.mean(taken)) if taken else None

    @property
    def megapixels_per_second(self) -> float | None:
        """Speed over all pictures together; None if nothing was timed."""
        return sum(self.pixels) / 1e6 / sum(self.seconds) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON: means, the median time, and the figures of each picture.

        Metrics that were not computed, and an infinite PSNR, are None.
        """
        return {
            "method": self.method,
            "parameters": self.parameters,
            **{name: rounded(self.mean(name), _DECIMALS[name]) for name in _METRICS},
            "seconds": rounded(float(np.median(self.seconds)), 4) if self.seconds else None,
            "megapixels_per_second": rounded(self.megapixels_per_second, 5),
            "peak_gib": rounded(self.peak_gib, 3),
            "diagnosis": self.diagnosis.to_dict() if self.diagnosis else None,
            "images": [self.of_picture(i) for i in range(len(self.names))],
        }

    def of_picture(self, index: int) -> dict[str, str | float | None]:
        """Returns the name and the figures of one picture; missing figures are None."""
        figures = {
            name: rounded(values[index], decimals) if (values := getattr(self, name)) else None
            for name, decimals in _DECIMALS.items()
        }
        return {"image": self.names[index], **figures, "pixels": self.pixels[index]}

    def cells(self) -> dict[str, str]:
        """Returns the cells of this method's row in a table, by column heading."""
        cells = {"method": self.method}
        for name, (heading, decimals) in _METRICS.items():
            mean, values = self.mean(name), getattr(self, name)
            if mean is not None:
                taken = sum(value is not None for value in values)
                part = "" if taken == len(values) else f" ({taken} of {len(values)})"
                cells[heading + part] = f"{mean:.{decimals}f}"
        cells["parameters"] = _NONE if self.parameters is None else f"{self.parameters:,}"
        cells["s/image"] = f"{np.median(self.seconds):.3f}" if self.seconds else _NONE
        cells["MP/s"] = f"{self.megapixels_per_second:.3g}" if self.seconds else _NONE
        cells["peak GiB"] = _NONE if self.peak_gib is None else f"{self.peak_gib:.2f}"
        return cells

    def caption(self, index: int) -> str:
        """Returns the metrics of one picture in a few words; empty if there are none."""
        return ", ".join(
            f"{heading} {values[index]:.{decimals}f}"
            for name, (heading, decimals) in _METRICS.items()
            if (values := getattr(self, name)) and values[index] is not None
        )


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Formats rows, such as `Scores.cells`, as a plain-text table."""
    lines = [[*rows[0]], *([*row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Formats rows, such as `Scores.cells`, as a Markdown table."""
    lines = [[*rows[0]], ["---", *["--:"] * (len(rows[0]) - 1)], *([*r.values()] for r in rows)]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def csv_table(scores: Sequence[Scores]) -> str:
    """Returns CSV with a line for each method and picture."""
    rows = [
        {"method": each.method, **each.of_picture(index)}
        for each in scores
        for index in range(len(each.names))
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def score(
    method: Method, comparison: Comparison, keep: Collection[int]
) -> tuple[Scores, dict[int, np.ndarray]]:
    """Denoises all pictures with a method, and measures them where there are clean ones.

    Returns the scores, and the denoised pictures at the indices in `keep`, by index. Errors name
    the picture.
    """
    figures: dict[str, list] = {key: [] for key in (*_METRICS, "seconds", "pixels")}
    diagnoses: list[Diagnosis] = []
    kept = {}
    peak = 0.0
    pairs = zip(comparison.names, comparison.pairs(), strict=True)
    for index, (name, (noisy, clean)) in enumerate(pairs):
        given = None if noisy is None else comparison.given(noisy)
        try:
            if method.computes and index == 0:
                method.denoise(name, given, clean)  # the first call is slow, as it builds graphs
            reset_peak_memory()
            started = time.perf_counter()
            denoised = method.denoise(name, given, clean)
            seconds = time.perf_counter() - started
            peak = max(peak, peak_memory())
            if not np.isfinite(denoised).all():
                raise ImageError("The result holds values that are not finite.")
        except CbsnError as error:
            raise type(error)(f"{name}, by {method.name}: {error}") from error
        if method.computes:
            figures["seconds"].append(seconds)
        figures["pixels"].append(denoised.shape[0] * denoised.shape[1])
        if index in keep:
            kept[index] = denoised
        if clean is not None:
            for key, value in comparison.measure(name, clean, denoised).items():
                figures[key].append(value)
        # Pictures that are unchanged or too small cannot be diagnosed.
        if noisy is None or denoised is given or min(noisy.shape[:2]) < SMALLEST:
            continue
        if both := comparison.diagnosed(name, noisy, denoised):
            try:
                diagnoses.append(diagnose(*both, method.strides))
            except ValueError as error:
                raise DataError(
                    f"{name}, by {method.name}: {error}. Remove this picture."
                ) from error
    scores = Scores(
        method.name,
        method.parameters,
        comparison.names,
        **figures,
        peak_gib=peak if method.computes else None,
        diagnosis=Diagnosis.mean_of(diagnoses) if diagnoses else None,
    )
    return scores, kept
