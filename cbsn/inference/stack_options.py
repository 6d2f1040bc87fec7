"""The options of stacks: how they are read, scaled and written."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsn.data.stack_repair import StackRepair
from cbsn.errors import CbsnWarning, ConfigError, ImageError, check_texts
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.scaling import Scale, Scaling, filled, measure_scaling, parse_scaling
from cbsn.images.stacks.stack import Stack, check_axes, parse_selection
from cbsn.inference.forecast import counted

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser

DTYPES = ("same", "uint8", "uint16", "float32")
"""Values of `--dtype`."""

# How far the statistics of a file may be from those of the training before it says so.
_FAR, _RATIO = 3.0, 4.0


@dataclasses.dataclass(frozen=True)
class StackOptions:
    """How stacks are read, scaled and written; the fields are the flags of `cbsn denoise`.

    Args:
        axes: letters of T, Z, C, Y, X and S, in the file's order. Default: what the file says.
        select: the planes to denoise, such as `t=0:10,c=1`. Default: all.
        roi: the rows and columns to denoise, such as `100:600,200:700`. Default: all.
        normalize: what a network sees as 0 and 1, see `parse_scaling`. "auto": as the model was
            trained, or else by the file's values. Default "auto".
        nan: "refuse" files with values that are not finite, or "fill" them. Default "refuse".
        dtype: one of `DTYPES`, of the result. Default "same".

    Raises:
        ConfigError: if a value cannot be understood.
    """

    axes: str | None = None
    select: str | None = None
    roi: str | None = None
    normalize: str = "auto"
    nan: str = "refuse"
    dtype: str = "same"

    def __post_init__(self):
        check_texts(dataclasses.asdict(self))
        parse_selection(self.select, self.roi)
        parse_scaling(self.normalize)
        if self.axes is not None:
            try:
                check_axes(self.axes.upper())
            except ImageError as error:
                raise ConfigError(f"--axes: {error}") from None
        for flag, known in ("nan", ("refuse", "fill")), ("dtype", DTYPES):
            if getattr(self, flag) not in known:
                raise ConfigError(
                    f"--{flag} must be {' or '.join(known)}. "
                    f"Received: --{flag} {getattr(self, flag)}"
                )

    @classmethod
    def pop(cls, flags: MutableMapping[str, Any]) -> "StackOptions":
        """Removes the options from a command's flags, which may lack some, and returns them."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: flags.pop(name) for name in names if name in flags})

    def given(self) -> list[str]:
        """Returns the flags that differ from their defaults."""
        fields = dataclasses.fields(self)
        return [f"--{f.name}" for f in fields if getattr(self, f.name) != f.default]

    def refuse_for_pictures(self) -> None:
        """Raises a ConfigError if any is given, where there are pictures only."""
        if given := self.given():
            raise ConfigError(
                f"{given[0]} is for stacks, and none of the pictures is one: omit it. "
                f"Received: {' '.join(given)}"
            )


def refuse_white(white: float | None) -> None:
    """Raises a ConfigError if the value of white is given, where there are stacks only."""
    if white is not None:
        raise ConfigError(
            "Stacks are scaled by --normalize, which also takes the values of black and white, "
            f"such as --normalize 0,{white:g}: omit --white. Received: --white {white:g}"
        )


@contextlib.contextmanager
def open_scaled(
    path: Path, denoisers: Sequence["Denoiser"], options: StackOptions
) -> Iterator[list[tuple[Stack, Scaling]]]:
    """Opens what is selected of a file's stacks, with the scaling that `denoise_stacks` uses."""
    with open_stacks(path, options.axes) as stacks:
        scalings = [choose_scaling(stack, denoisers, options, path) for stack in stacks]
        selection = parse_selection(options.select, options.roi)
        repairs, fills = denoisers[0].options.repair, options.nan == "fill"
        stacks = [StackRepair(stack, repairs, fills=fills).stack for stack in stacks]
        if fills:
            stacks = [filled(stack) for stack in stacks]
        yield [
            (stack.selected(selection), scaling)
            for stack, scaling in zip(stacks, scalings, strict=True)
        ]


def choose_scaling(
    stack: Stack, denoisers: Sequence["Denoiser"], options: StackOptions, source: Path
) -> Scaling:
    """Returns how a stack's values are scaled, with a scale for each channel.

    Args:
        stack: the whole stack, before any selection.
        denoisers: one for all channels, or one for each.
        options: of which `normalize`, `nan` and `select` matter.
        source: the stack's file, for messages.

    Raises:
        ConfigError: if there are too many models, or they have no scaling, or one for other
            channels.
        ImageError: if the file is damaged, lacks planes that are selected, or has values that are
            not finite.
    """
    stack.selected(parse_selection(options.select)).layout.check_planes()
    channels = stack.layout.size("C")
    if len(denoisers) not in (1, channels):
        raise ConfigError(
            f"{source} has {counted(channels, 'channel')}: give one --model for all of them, or "
            f"one for each. Received: {len(denoisers)} models"
        )
    method = parse_scaling(options.normalize)
    scalings = [each for denoiser in denoisers if (each := denoiser.scaling)]
    are_trained = len(scalings) == len(denoisers)
    if method == "auto":
        method = "model" if are_trained else "range"
        if method == "range" and stack.layout.samples > 1 and stack.layout.dtype.kind == "u":
            return _of_photographs(stack, ignore_nan=options.nan == "fill")
    if method != "model":
        return measure_scaling(stack, method, ignore_nan=options.nan == "fill")
    if not are_trained:
        raise ConfigError(
            "The model was trained on pictures, and has no scaling of its own: omit --normalize "
            f"model. Received: --normalize {options.normalize}"
        )
    scales = []
    for channel in range(channels):
        own = scalings[channel if len(scalings) > 1 else 0]
        if len(own.channels) not in (1, channels):
            other = "give one --model for each" if channels > 1 else "use a model of one channel"
            raise ConfigError(
                f"The model was trained on {len(own.channels)} channels, and {source} has "
                f"{channels}: {other}, or --normalize {own.method}."
            )
        scales.append(own.of(channel))
    method = scalings[0].method
    found = measure_scaling(stack, "deviation", ignore_nan=True)
    selected = parse_selection(options.select).get("C", slice(None))
    pairs = [*zip(found.channels, scales, strict=True)][selected]
    _compare(pairs, source, method)
    # Which pixels are faulty is a matter of this stack's camera.
    scales = [
        dataclasses.replace(trained, least=here.least, most=here.most)
        for trained, here in zip(scales, found.channels, strict=True)
    ]
    return Scaling(f"as in training, {method}", tuple(scales))


def _of_photographs(stack: Stack, *, ignore_nan: bool) -> Scaling:
    """Returns the scaling of RGB in integers, as of pictures: the fewest bits that hold it."""
    found = measure_scaling(stack, "range", ignore_nan=ignore_nan)
    bits = max(1, max(int(each.high) for each in found.channels)).bit_length()
    white = 2.0 ** max(8, bits + bits % 2) - 1
    channels = tuple(dataclasses.replace(each, low=0.0, high=white) for each in found.channels)
    return Scaling("RGB", channels)


def _compare(channels: Sequence[tuple[Scale, Scale]], source: Path, method: str) -> None:
    """Warns of channels whose values are far from those that the model was trained on."""
    for here, trained in channels:
        apart = abs(here.mean - trained.mean) > _FAR * trained.deviation
        ratio = here.deviation / trained.deviation if trained.deviation else 1.0
        if apart or not 1 / _RATIO < ratio < _RATIO:
            warnings.warn(
                f"{source}: values (mean {here.mean:g}, deviation {here.deviation:g}) unlike those "
                f"that the model was trained on (mean {trained.mean:g}, deviation "
                f"{trained.deviation:g}). To scale them by their own: --normalize {method}.",
                CbsnWarning,
                stacklevel=2,
            )
            break
