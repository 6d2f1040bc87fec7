"""The patches of the pictures that are to be denoised."""

import statistics
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cbsn.data.image_io import pixel_bytes, read_picture, to_rgb
from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.evaluation.named_pictures import spread
from cbsn.inference.outputs import find_sources
from cbsn.value_range import value_range

PATCH_SIZE = 256
"""Side of the patches; larger than the crops that are trained on, so that these differ."""

SMALLEST = 16
"""Side of the smallest patches; in smaller ones there is next to nothing to learn from."""

MOST_PATCHES = 512
"""In memory these are 400 MB of float32, or 100 MB of bytes."""

MOST_BYTES = 2 << 30
"""Of pixels that are read: some thirty photographs of 24 megapixels, in about as many seconds."""

_HELD_OUT = 8
"""One patch of so many is held out."""


class PicturePatches:
    """Equally large patches of pictures, in memory; `PatchPipeline` takes them as records.

    Args:
        patches: at least one, [P, P, C] of one shape and dtype: uint8, uint16, or float32 in
            [0, 1]; C is 3, or 6 for two shots.
        sources: of each, the picture's name.

    Attributes:
        patch_size: int, P.
        dtype: of the patches.
        counts: list of one int, how many they are.
        pictures: int, how many pictures they are of.

    Example:
        >>> patches = PicturePatches.read(["noisy/*.png"])
        >>> training, held_out = patches.split()
    """

    def __init__(self, patches: Sequence[np.ndarray], sources: Sequence[str]):
        self._patches = [*patches]
        self._sources = [*sources]
        self.patch_size = self._patches[0].shape[0]
        self.dtype = self._patches[0].dtype
        self.counts = [len(self._patches)]
        self.pictures = len({*self._sources})

    @classmethod
    def read(
        cls, image_paths: Iterable[str | Path], *, white: float | None = None
    ) -> "PicturePatches":
        """Cuts pictures into patches, one picture at a time.

        Gray becomes three equal channels, alpha is dropped. The patches are 256 pixels wide, or
        less if half of the pictures are smaller; pictures that are smaller still are left out, as
        are those less than `SMALLEST` pixels high or wide, and damaged ones, each with a
        `CbsnWarning`. Of many or large pictures it takes some, at most `MOST_BYTES`, and of these
        `MOST_PATCHES` patches, evenly. If the pictures are not all of one dtype, the patches are
        float32.

        Args:
            image_paths: folders, globs or files, each as for `find_images`.
            white: float > 0, the value of white in the files, as for `read_picture`. Default None.

        Raises:
            DataError: if there is no picture, or none that can be read and is large enough.
        """
        paths = find_sources(image_paths)
        sizes = {path: pixel_bytes(path) for path in paths}
        fit = len(paths) * MOST_BYTES // max(1, sum(sizes.values()))
        chosen = spread(paths, max(1, min(fit, MOST_PATCHES)))
        # The smallest first, so that the others may take what room these leave.
        chosen.sort(key=lambda path: (sizes[path], path))
        found: dict[str, list[np.ndarray]] = {}
        room = MOST_PATCHES
        for number, path in enumerate(chosen):
            try:
                patches = _cut(path, room // (len(chosen) - number), white)
            except (ImageError, MemoryError) as error:
                reason = str(error) or f"{path}: not enough memory"
                warnings.warn(f"left out of the adaptation: {reason}", CbsnWarning, stacklevel=2)
                continue
            found[str(path)] = patches
            room -= len(patches)
        if not found:
            raise DataError(
                f"There is no picture to adapt to, of {SMALLEST} px or more in height and width: "
                f"denoise without --adapt. Tried: {len(chosen)}"
            )
        return cls(*_alike(found))

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: int) -> np.ndarray:
        """The patch number `index`, [P, P, C] of `dtype`."""
        return self._patches[index]

    def describe(self, index: int) -> str:
        """Says which picture a patch is of."""
        return f"a patch of {self._sources[index]}"

    def split(self) -> tuple["PicturePatches", "PicturePatches"]:
        """Returns the patches to train on, and every eighth one, which is held out of that.

        No pixel is in both, unless there is but one patch: then it is both.
        """
        if len(self) == 1:
            return self, self
        held_out = {*range(1, len(self), _HELD_OUT)}
        return self._some({*range(len(self))} - held_out), self._some(held_out)

    def paired(self, others: Sequence[np.ndarray]) -> "PicturePatches":
        """Returns the first patches with a second shot of each, [P, P, 6].

        Args:
            others: one or more, of the patches' shape and dtype, in their order.
        """
        pairs = [
            np.concatenate(shots, axis=-1) for shots in zip(self._patches, others, strict=False)
        ]
        return PicturePatches(pairs, self._sources[: len(pairs)])

    def shuffled(self, seed: int) -> "PicturePatches":
        """Returns the patches in a random order, a function of the seed."""
        return self._some(np.random.default_rng(seed).permutation(len(self)))

    def _some(self, indices: Iterable[int]) -> "PicturePatches":
        indices = [*indices]
        return PicturePatches(
            [self._patches[index] for index in indices], [self._sources[index] for index in indices]
        )


def _cut(path: Path, count: int, white: float | None) -> list[np.ndarray]:
    """At most so many square patches of a picture, which do not overlap.

    Raises:
        ImageError: if it cannot be read, or is too small.
    """
    pixels = to_rgb(read_picture(path, white=white))
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(f"{path} has {width} × {height} px, too few to learn from.")
    side = min(PATCH_SIZE, height, width)
    tops, lefts = (
        np.linspace(0, length - side, length // side).astype(int) for length in pixels.shape[:2]
    )
    places = [(top, left) for top in tops for left in lefts]
    # By chance, as every so-manieth might be all of one column.
    order = np.random.default_rng(0).permutation(len(places))[:count]
    return [
        pixels[top : top + side, left : left + side].copy()
        for top, left in (places[index] for index in sorted(order))
    ]


def _alike(found: dict[str, list[np.ndarray]]) -> tuple[list[np.ndarray], list[str]]:
    """The patches in one size and dtype, and the picture of each; too small ones are left out."""
    size = statistics.median_high(patches[0].shape[0] for patches in found.values())
    small = [source for source, patches in found.items() if patches[0].shape[0] < size]
    if small:
        warnings.warn(
            f"left out of the adaptation as smaller than {size} px: {len(small)}, such as "
            f"{small[0]}",
            CbsnWarning,
            stacklevel=3,
        )
    kept = [
        (source, patch[:size, :size])
        for source, patches in found.items()
        if source not in small
        for patch in patches
    ]
    dtypes = {patch.dtype for _, patch in kept}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    patches = [
        patch
        if patch.dtype == dtype
        else patch.astype(np.float32) / np.float32(value_range(patch.dtype))
        for _, patch in kept
    ]
    return patches, [source for source, _ in kept]
