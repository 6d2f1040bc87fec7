"""Draws the noise of pictures in one figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from cbsn.errors import ConfigError
from cbsn.files import atomic_path
from cbsn.noise.advice import Advice
from cbsn.noise.estimate import DIRECTIONS, LAGS, NoiseEstimate
from cbsn.noise.limits import limits
from cbsn.noise.survey import BINS

_COLORS = {"red": "#c0392b", "green": "#2e8b57", "blue": "#2a6fbb", "gray": "#444444"}
_STYLES = (
    {"color": "#1b4f72", "marker": "o", "markersize": 4.5},
    {"color": "#d35400", "marker": "s", "markersize": 4},
    {"color": "#999999", "marker": "^", "markersize": 3, "linewidth": 0.8},
    {"color": "#bbbbbb", "marker": "v", "markersize": 3, "linewidth": 0.8},
)
_SMALL = 0.02  # correlations up to this are drawn linearly, larger ones logarithmically
_TICKS = (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)
_NAMES = [f"{tick:g}".replace("-", "−") for tick in _TICKS]
_WRITER = "cbsn noise"
# By the suffix, the name that a format has for the program that wrote a file, and what is then in
# the file, by which a figure of this module is known.
_MARKS = {
    ".png": ("Software", f"tEXtSoftware\0{_WRITER}"),
    ".pdf": ("Creator", f"/Creator ({_WRITER})"),
    ".svg": ("Creator", f"<dc:title>{_WRITER}</dc:title>"),
}
_ENDS = 4096  # bytes at the beginning and at the end of a file, one of which has the mark


def check_figure(path: Path) -> None:
    """Raises a ConfigError, before any work is done, if the figure cannot be drawn."""
    if path.suffix.lower() not in _MARKS:
        raise ConfigError(f"--figure must end in {', '.join(_MARKS)}. Received: --figure {path}")


def is_figure(path: Path) -> bool:
    """Returns whether a file, of a suffix that `check_figure` accepts, is from `draw_noise`."""
    with path.open("rb") as file:
        start = file.read(_ENDS)
        file.seek(max(0, path.stat().st_size - _ENDS))
        return _MARKS[path.suffix.lower()][1].encode() in start + file.read()


def draw_noise(estimate: NoiseEstimate, advice: Advice, path: Path) -> None:
    """Draws strength, correlation with the advised stride, and pixel values into a file.

    Raises ConfigError if the file cannot be written; `check_figure` reports other mistakes.
    """
    figure = Figure(figsize=(11, 8.2), layout="constrained")
    plural = "" if estimate.pictures == 1 else "s"
    figure.suptitle(
        f"Noise of {estimate.pictures} picture{plural}, from {estimate.source} "
        f"({estimate.blocks:,} blocks of 32 × 32 px)",
        fontsize=13,
    )
    (levels, correlation), (values, plane) = figure.subplots(2, 2)
    _draw_levels(levels, estimate)
    _draw_correlation(correlation, estimate, advice)
    _draw_values(values, estimate)
    _draw_map(figure, plane, estimate)
    for axes in (levels, correlation, values):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    name, _ = _MARKS[path.suffix.lower()]
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130, metadata={name: _WRITER})
    except OSError as error:
        raise ConfigError(f"--figure {path} cannot be written: {error.strerror}.") from error


def _draw_levels(axes: Any, estimate: NoiseEstimate) -> None:
    lines = zip(
        estimate.channels,
        estimate.points,
        estimate.slope,
        estimate.floor,
        estimate.has_slope,
        strict=True,
    )
    for name, points, slope, floor, has_slope in lines:
        intensity, sigma = points.T
        dots = {"color": _COLORS[name], "markersize": 4.5, "alpha": 0.8}
        axes.plot(intensity, sigma, "o", label=None if has_slope else name, **dots)
        if not has_slope:
            continue
        along = np.linspace(intensity.min(), intensity.max(), 100)
        fitted = np.sqrt(np.maximum(slope * along + floor, 0))
        line = f"σ² = {slope:.2f}·I + {floor:.1f}".replace("+ -", "− ").replace("-", "−")
        axes.plot(along, fitted, color=_COLORS[name], linewidth=1.4, label=f"{name}: {line}")
    axes.set(title="Strength by intensity", xlabel="intensity I, of 255", ylabel="σ, of 255")
    axes.set(xlim=(0, 255), ylim=(0, 1.25 * max(each[:, 1].max() for each in estimate.points)))
    axes.legend(frameon=False, fontsize=9)


def _draw_correlation(axes: Any, estimate: NoiseEstimate, advice: Advice) -> None:
    lags = np.arange(1, LAGS + 1)
    limit = limits(estimate)
    axes.fill_between(
        lags, -limit, limit, step="mid", color="#2e8b57", alpha=0.15, label="negligible"
    )
    for name, values, style in [*zip(DIRECTIONS, estimate.correlation, _STYLES, strict=True)][::-1]:
        axes.plot(lags, values, label=name, **{"linewidth": 1.3, **style})
    axes.axvline(advice.stride_b, color="#8e44ad", linestyle="--", linewidth=1.2)
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
    text = f"stride_b {advice.stride_b}"
    axes.annotate(text, (advice.stride_b, 0.97), xytext=(5, 0), color="#8e44ad", **place)
    axes.set_yscale("symlog", linthresh=_SMALL, linscale=0.8)
    axes.set_yticks(_TICKS, _NAMES)
    axes.minorticks_off()
    axes.set_xticks(lags)
    axes.set_ylim(1.3 * min(estimate.correlation.min(), -_SMALL), 1)
    axes.set(xlabel="distance in px (diagonally: steps)", ylabel="correlation ρ")
    axes.set_title("Correlation by distance")
    lines, names = (each[::-1] for each in axes.get_legend_handles_labels())
    axes.legend(
        lines, names, frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.92)
    )


def _draw_values(axes: Any, estimate: NoiseEstimate) -> None:
    edges = np.linspace(0, 255, BINS + 1)
    rows = zip(estimate.channels, estimate.histogram, estimate.clipped, strict=True)
    for name, shares, (black, white) in rows:
        label = f"{name}: {black:.1%} at 0, {white:.1%} at 255"
        axes.stairs(100 * shares, edges, color=_COLORS[name], linewidth=1.3, label=label)
    axes.set(title="Pixel values and clipping", xlim=(-4, 259), ylim=(0, None))
    axes.set(xlabel="pixel value, of 255", ylabel="share of the pixels in %")
    axes.legend(frameon=False, fontsize=9)


def _draw_map(figure: Any, axes: Any, estimate: NoiseEstimate) -> None:
    edge = len(estimate.correlation_map) / 2
    image = axes.imshow(
        estimate.correlation_map,
        cmap="RdBu_r",
        norm=SymLogNorm(_SMALL, linscale=0.8, vmin=-1, vmax=1),
        extent=(-edge, edge, edge, -edge),
    )
    bar = figure.colorbar(image, ax=axes, label="correlation ρ", ticks=_TICKS, shrink=0.9)
    bar.ax.set_yticklabels(_NAMES)
    bar.ax.minorticks_off()
    axes.set(xlabel="px to the right", ylabel="px down", title="Correlation by direction")
