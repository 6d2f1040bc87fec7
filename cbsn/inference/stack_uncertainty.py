"""The uncertainty of denoised stacks: one calibration for all planes of a channel."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cbsn.images.stacks.scaling import Scale, fill_missing, without_alpha
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.tiff_stacks import TiffFacts
from cbsn.inference.uncertainty import (
    CALIBRATED,
    MEASURED,
    WINDOWS,
    Calibration,
    Uncertainty,
    places,
)
from cbsn.noise.sampler import NoiseSampler

if TYPE_CHECKING:  # they load TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.stack_steps import Step
    from cbsn.inference.stacks import Seen, StackWork

_ROUNDING = 1 / 12  # variance of the error that rounding to integers makes
_SHOWN = ("min", "max", "Ranges")  # of ImageJ: which values are shown as black and white


Index = tuple[int, ...]
Window = tuple[Index, slice, slice]
"""A plane's index, and the rows and columns of a part of it."""


class StackSink(Protocol):
    """What planes are written to: a `PartialStackFile`, or an array in its place."""

    done: int

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        """See `StackFile.write`."""

    def count(self, done: int) -> None:
        """See `PartialStackFile.count`."""


class UncertainWork:
    """A `StackWork` that also estimates how far its results are from the truth.

    Each plane of its results is a pair: the denoised values, and the standard deviations of their
    errors in the file's own units, float32. Those of pixels that stay as they are, such as hot
    pixels, and of those that were missing, are NaN.

    Args:
        work: how the stack is denoised.
        denoisers: one for all channels, or one for each channel.
        steps: those that are to be taken. Their channels are calibrated, which takes a while.

    Attributes:
        layout: that of the denoised stack.
    """

    def __init__(self, work: "StackWork", denoisers: Sequence["Denoiser"], steps: Sequence["Step"]):
        self.layout = work.layout
        self.read = work.read
        self._work, self._denoisers = work, denoisers
        channels = dict.fromkeys(work.channel(step) for step in steps)
        self._calibrations = {channel: self._calibrated(channel) for channel in channels}

    def denoise(self, step: "Step", seen: "Seen") -> list[tuple[np.ndarray, np.ndarray]]:
        """Denoises what `read` has returned; returns the planes that the step fills, in pairs."""
        channel = self._work.channel(step)
        estimate = Uncertainty(self._calibrations[channel])
        with self._denoiser(channel).estimating(estimate):
            result = self._work.denoise(step, seen)
        sigmas = np.concatenate([each.reshape(-1, *each.shape[-3:]) for each in estimate.sigmas])
        pairs = []
        own = (each[step.own] for each in (seen.planes, seen.missing, sigmas))
        for plane, missing, sigma, made in zip(*own, result, strict=True):
            fault = self._work.scaling.of(channel).faulty(without_alpha(plane))
            if fault is not None:
                sigma[fault[0].reshape(sigma.shape)] = np.nan
            if missing is not None:
                sigma[without_alpha(missing).reshape(sigma.shape)] = np.nan
            sigma = sigma[seen.rows, seen.columns]
            if self.layout.dtype.kind in "iu":
                sigma = np.sqrt(np.square(sigma) + np.float32(_ROUNDING))
            if self.layout.samples == 4:  # nothing is done to alpha
                sigma = np.concatenate([sigma, np.zeros_like(sigma[..., :1])], axis=-1)
            pairs.append((made, sigma.reshape(made.shape)))
        return pairs

    def notes(self) -> Iterator[str]:
        """Yields what the user should know about the uncertainty."""
        several = self._work.stack.layout.size("C") > 1
        for channel, calibration in self._calibrations.items():
            if calibration.note:
                yield f"{f'channel {channel}: ' if several else ''}{calibration.note}."

    def _denoiser(self, channel: int) -> "Denoiser":
        return self._denoisers[channel if len(self._denoisers) > 1 else 0]

    def _calibrated(self, channel: int) -> Calibration:
        """Returns the calibration of a channel, counted as in the file."""
        denoiser, scale = self._denoiser(channel), self._work.scaling.of(channel)
        layout = self._work.stack.layout
        planes = [index for index in layout.indices() if layout.file_channel(index) == channel]
        choose = _of_volume if denoiser.of_volumes else _of_planes

        def read(side: int) -> list[np.ndarray]:
            found = (self._read(*each, scale) for each in choose(layout, planes, side))
            return [each for each in found if each is not None]

        noise = None
        if measured := read(MEASURED):
            in_units = [scale.apply(each) for each in measured]
            noise = NoiseSampler.measure(in_units, photographs=False)
        windows = read(CALIBRATED) if noise else []
        if not windows:
            return Calibration()
        with denoiser.estimating(Uncertainty(noise=noise, seed=denoiser.options.seed)) as found:
            denoiser.scaled(np.stack(windows), scale, dtype=np.float32)
        assert found.calibration is not None
        return found.calibration

    def _read(self, index: Index, rows: slice, columns: slice, scale: Scale) -> np.ndarray | None:
        """Returns a window [h, w, S] without alpha, faulty pixels, and values that are missing.

        None if all of its values are missing.
        """
        values = without_alpha(self._work.stack.read(index, rows, columns))
        if not np.isfinite(values).any():
            return None
        plane = fill_missing(values)
        fault = scale.faulty(plane)
        plane = plane if fault is None else fault[1]
        return plane if plane.ndim == 3 else plane[..., None]


def sigma_layout(layout: Layout) -> Layout:
    """Returns the layout of the stack of standard deviations for a denoised one."""
    metadata = layout.metadata
    if isinstance(metadata, TiffFacts) and metadata.imagej:
        shown = {name: value for name, value in metadata.imagej.items() if name not in _SHOWN}
        metadata = dataclasses.replace(metadata, imagej=shown)
    return dataclasses.replace(layout, dtype=np.dtype(np.float32), metadata=metadata)


class PairOfFiles:
    """Two files of stacks, of which the planes are written in pairs.

    Args:
        first, second: the files, both with the same settings.
    """

    def __init__(self, first: StackSink, second: StackSink):
        self._files = first, second

    @property
    def done(self) -> int:
        """The number of steps that an interrupted run has done in both."""
        return min(each.done for each in self._files)

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: Any
    ) -> None:
        """Writes a part of a plane of both; see `StackFile.write`."""
        for file, each in zip(self._files, part, strict=True):
            file.write(stack, index, rows, columns, each)

    def count(self, done: int) -> None:
        """See `PartialStackFile.count`."""
        for file in self._files:
            file.count(done)


def _of_planes(layout: Layout, planes: Sequence[Index], side: int) -> Iterator[Window]:
    """Yields windows evenly spread over planes, and over their rows and columns."""
    spots = places(layout.size("Y"), layout.size("X"), side)
    numbers = range(WINDOWS)
    pairs = [(n * len(planes) // WINDOWS, n * len(spots) // WINDOWS) for n in numbers]
    for plane, spot in dict.fromkeys(pairs):
        yield planes[plane], *spots[spot]


def _of_volume(layout: Layout, planes: Sequence[Index], side: int) -> Iterator[Window]:
    """Yields the planes of one window, in the middle of a volume, of as many pixels."""
    place = layout.outer.index("Z")

    def volume(index: Index) -> Index:
        return index[:place] + index[place + 1 :]

    groups = [[*each] for _, each in itertools.groupby(sorted(planes, key=volume), volume)]
    whole = groups[len(groups) // 2]
    depth = min(WINDOWS, len(whole))
    side = math.isqrt(side**2 * WINDOWS // depth)
    rows, columns = (_middle(layout.size(axis), side) for axis in "YX")
    for index in whole[_middle(len(whole), depth)]:
        yield index, rows, columns


def _middle(length: int, size: int) -> slice:
    size = min(length, size)
    start = (length - size) // 2
    return slice(start, start + size)
