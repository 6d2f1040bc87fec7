"""What a network returned for a picture, from which results of any strength are made."""

from collections.abc import Callable

import numpy as np

from cbsn.inference.options import Strength
from cbsn.inference.pixels import Frame, Units
from cbsn.inference.tiling import Index
from cbsn.value_range import row_blocks


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a float32 array."""
    return np.empty(shape, np.float32)


class KeptResult:
    """The network's output for one picture, see `Denoiser.keeping`.

    It needs neither the network nor the denoiser any more, so the strength can be changed at once.

    Args:
        make: function from a shape to a float32 array of it, which may lie on the disk.
        rounding: how results become integers, a key of `cbsn.inference.options.ROUNDINGS`.
    """

    def __init__(self, make: Callable[[tuple[int, ...]], np.ndarray], rounding: str):
        self._make = make
        self._rounding = rounding
        self._image: np.ndarray | None = None
        self._units: Units | None = None
        self._output: np.ndarray | None = None

    def begin(self, frame: Frame) -> None:
        """Makes room for the output of a picture."""
        self._image, self._units = frame.image, frame.units
        self._output = self._make(frame.image.shape)

    def add(self, frame: Frame, where: slice | tuple[Index, ...], output: np.ndarray) -> None:
        """Keeps the output for some pixels, if they are of this picture."""
        if frame.image is self._image:
            assert self._output is not None
            self._output[where] = output

    def end(self) -> None:
        """Forgets the picture itself, which takes memory."""
        self._image = None

    def blend(self, pixels: np.ndarray, strength: Strength) -> None:
        """Overwrites the picture with what its `Denoiser` would make of it with a strength.

        Args:
            pixels: the noisy picture as it was denoised, [H, W, C], C from 1 to 4, in the whole
                range of its dtype, as `read_picture` returns it. Alpha stays as it is, and so do
                the colours where it is 0.
            strength: for luma and colour.
        """
        channels = pixels.shape[-1]
        colors = pixels[..., : 3 if channels >= 3 else 1]
        if strength == Strength(0) or self._output is None:  # nothing is visible
            return
        assert self._units is not None
        for rows in row_blocks(colors):
            noisy, output = colors[rows], self._output[rows]
            made = self._units.finish(output, noisy, strength, self._rounding)
            if channels % 2 == 0:
                np.copyto(made, noisy, where=pixels[rows][..., -1:] == 0)
            noisy[...] = made
