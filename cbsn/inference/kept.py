"""What a network returned for a picture, from which results of any strength are made."""

from pathlib import Path

import numpy as np

from cbsn.inference.options import Strength
from cbsn.inference.pixels import Frame, Units
from cbsn.inference.tiling import Index
from cbsn.value_range import row_blocks


class KeptResult:
    """The network's output for one picture, see `Denoiser.keeping`.

    It needs neither the network nor the denoiser any more, so the strength can be changed at once.

    Args:
        rounding: how results become integers, a key of `cbsn.inference.options.ROUNDINGS`.
        path: file to keep the output in, `.npy`. Default None: it stays in memory.
    """

    def __init__(self, rounding: str, path: Path | None = None):
        self._rounding = rounding
        self._path = path
        self._image: np.ndarray | None = None
        self._units: Units | None = None
        self._output: np.ndarray | None = None

    def begin(self, frame: Frame) -> None:
        """Makes room for the output of a picture, float32 of its shape."""
        self._image, self._units = frame.image, frame.units
        shape = frame.image.shape
        if self._path is None:
            self._output = np.empty(shape, np.float32)
        else:
            self._output = np.lib.format.open_memmap(self._path, "w+", np.float32, shape)

    def add(self, frame: Frame, where: slice | tuple[Index, ...], output: np.ndarray) -> None:
        """Keeps the output for some pixels, if they are of this picture."""
        if frame.image is self._image:
            assert self._output is not None
            self._output[where] = output

    def end(self) -> None:
        """Forgets the picture itself, and what lies in a file."""
        self._image = None
        if self._path is not None:
            self._output = None

    def blend(self, pixels: np.ndarray, strength: Strength) -> None:
        """Overwrites the picture with what its `Denoiser` would make of it with a strength.

        Args:
            pixels: the noisy picture as it was denoised, [H, W, C], C from 1 to 4, in the whole
                range of its dtype, as `read_picture` returns it. Alpha stays as it is, and so do
                the colours where it is 0.
            strength: for luma and colour.

        Raises:
            OSError: if the file is gone.
        """
        channels = pixels.shape[-1]
        colors = pixels[..., : 3 if channels >= 3 else 1]
        if strength == Strength(0) or self._units is None:  # nothing was visible
            return
        output = self._output
        if output is None:
            assert self._path is not None
            output = np.load(self._path, mmap_mode="r")
        for rows in row_blocks(colors):
            noisy = colors[rows]
            made = self._units.finish(output[rows], noisy, strength, self._rounding)
            if channels % 2 == 0:
                np.copyto(made, noisy, where=pixels[rows][..., -1:] == 0)
            noisy[...] = made
