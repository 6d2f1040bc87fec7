"""The value range of a picture: which value is black, and which is white."""

import dataclasses
import math
import numbers
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from cbsn.errors import ConfigError, ImageError

# Floats outside [0, 1] by at most this are due to rounding, as 255/254.9999 in float32 is.
ROUNDING_ERROR = 1e-5
_MISSING = 1e37  # larger floats are no brightness: programs write them for pixels without data
_FEW = 1e-3  # fewer than this share of a picture's values may be faulty pixels
_DARK = 1 / 4  # floats in [0, 1] that stay below are scaled: they leave two bits unused
_BLOCK_BYTES = 2**22
_BITS = {float(2**bits - 1): bits for bits in range(2, 16, 2)}


def value_range(dtype: DTypeLike) -> float:
    """Returns the white level of pictures of a dtype: 255, 65535, or 1 for floats."""
    dtype = np.dtype(dtype)
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max)
    if dtype.kind == "f":
        return 1.0
    raise TypeError(f"Pictures must be uint8, uint16 or float. Received: dtype={dtype}")


def to_unit(picture: np.ndarray, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Returns a picture of any dtype as floats, 1.0 being white; values beyond [0, 1] stay."""
    return picture.astype(dtype) / np.array(value_range(picture.dtype), dtype)


def to_levels(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of any dtype as float32 in 8-bit levels: 255 is white."""
    return picture.astype(np.float32) * np.float32(255 / value_range(picture.dtype))


def from_unit(unit: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Returns floats, 1.0 being white, as a picture of a dtype, clipped to [0, 1]."""
    unit = np.clip(unit, 0, 1)
    if np.dtype(dtype).kind == "u":
        unit = np.rint(unit * value_range(dtype))
    return unit.astype(dtype)


def row_blocks(pixels: np.ndarray) -> Iterator[slice]:
    """Yields slices of a picture's rows, a few MB each, to work without a second large array."""
    height = pixels.shape[0]
    rows = max(1, _BLOCK_BYTES * height // max(1, pixels.nbytes))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def check_white(white: float | None) -> None:
    """Raises a ConfigError if `--white` is neither None nor a finite number above 0."""
    if white is None:
        return
    if not isinstance(white, numbers.Real) or not 0 < white < math.inf:
        given = f"{white:g}" if isinstance(white, numbers.Real) else repr(white)
        raise ConfigError(
            "--white must be a number above 0: the value of white in the files, such as 4095. "
            f"Received: --white {given}"
        )


@dataclasses.dataclass(frozen=True)
class ValueRange:
    """The values of black and white in a picture.

    Networks see the range as [0, 1]. Cameras and microscopes store 10, 12 or 14 bits in 16-bit
    files, and floats in any unit, so the dtype alone does not determine the range.

    Args:
        black, white: the values that a network sees as 0 and as 1.
        source: how the range is known: `"dtype"`, `"values"`, `"file"` or `"user"`.

    Example:
        >>> pixels = np.array([[[0], [4000]]], np.uint16)
        >>> ValueRange.of(pixels)
        ValueRange(black=0.0, white=4095.0, source='values')
    """

    black: float
    white: float
    source: str = "dtype"

    @classmethod
    def of(
        cls, pixels: np.ndarray, *, white: float | None = None, stated: float | None = None
    ) -> "ValueRange":
        """Returns the range of a picture's colours, [H, W, C] without alpha.

        For uint8, it is 0 to 255. For uint16, it is 0 to the largest value of 2, 4, … 14 or 16
        bits, the fewest that hold all values. For floats, it is [0, 1] if they lie in it and reach
        beyond 1/4; otherwise, from 0, or their lowest value if negative, to their highest. The
        user's `white` takes precedence, then the file's `stated`, unless values lie outside of it.

        Raises:
            ImageError: if values are not finite, stand for missing data, or are integers above
                `white`; or if `white` is above what the integers' dtype holds.
        """
        low, high = float(pixels.min()), float(pixels.max())
        if not np.isfinite([low, high]).all():
            raise ImageError(
                "holds values that are not finite (NaN or infinity): replace them first."
            )
        if max(-low, high) > _MISSING:
            raise ImageError(
                f"holds values from {low:g} to {high:g}, which mark pixels without data: crop "
                "these away."
            )
        full = value_range(pixels.dtype)
        is_float = pixels.dtype.kind == "f"
        if white is not None:
            if not is_float and not high <= white <= full:
                least = f"from {high:g} to " if high < full else ""
                raise ImageError(
                    f"has {pixels.dtype} values up to {high:g}, so white must be {least}{full:g}. "
                    f"Received: --white {white:g}"
                )
            return cls(0.0, float(white), "user")
        most = np.inf if is_float else full
        if stated is not None and low >= 0 and high <= stated <= most and stated > 0:
            return cls(0.0, float(stated), "dtype" if stated == full else "file")
        if is_float:
            if (low >= -ROUNDING_ERROR and _DARK < high <= 1 + ROUNDING_ERROR) or low == high == 0:
                return cls(0.0, 1.0)
            black = min(low, 0.0)
            return cls(black, high if high > black else black + 1, "values")
        if pixels.dtype == np.uint16 and high > 0:
            bits = int(high).bit_length()
            white = 2 ** (bits + bits % 2) - 1
            return cls(0.0, float(white), "dtype" if white == full else "values")
        return cls(0.0, full)

    @staticmethod
    def cut(pixels: np.ndarray, white: float) -> int:
        """Clips values that no brightness up to `white` explains, in place; returns how many."""
        # Noisy floats may lie beyond black and white.
        low, high = (-white / 2, white * 3 / 2) if pixels.dtype.kind == "f" else (0, white)
        blocks = (pixels[rows] for rows in row_blocks(pixels))
        count = sum(int(np.count_nonzero((block < low) | (block > high))) for block in blocks)
        if count > _FEW * pixels.size:
            raise ImageError(
                f"has values from {pixels.min():g} to {pixels.max():g}, of which "
                f"{count / pixels.size:.1%} are out of range. Received: --white {white:g}"
            )
        if count:
            np.clip(pixels, low, high, out=pixels, casting="unsafe")
        return count

    def few_decide(self, pixels: np.ndarray) -> tuple[int, float] | None:
        """Returns the number of values that determine white, if few, and white without them.

        They are the values above a quarter of the range, maybe faulty pixels. None if not few.
        """
        if pixels.dtype == np.uint8:
            return None
        limit = self.black + (self.white - self.black) / 4
        blocks = [pixels[rows] for rows in row_blocks(pixels)]
        count = sum(int(np.count_nonzero(block > limit)) for block in blocks)
        if not 0 < count < _FEW * pixels.size:
            return None
        low = pixels.min()
        largest = max(block.max(where=block <= limit, initial=low) for block in blocks)
        if pixels.dtype.kind == "u":
            return count, ValueRange.of(largest.reshape(1, 1, 1)).white
        return count, float(largest)

    @classmethod
    def common(cls, first: "ValueRange", second: "ValueRange") -> "ValueRange":
        """Returns the narrowest range that holds both, for comparing two pictures."""
        black, white = min(first.black, second.black), max(first.white, second.white)
        whole = [each for each in (first, second) if (each.black, each.white) == (black, white)]
        return whole[0] if whole else cls(black, white, first.source)

    def is_of(self, dtype: DTypeLike) -> bool:
        """Returns whether this is the whole range of a dtype."""
        return (self.black, self.white) == (0.0, value_range(dtype))

    def stretch(self, pixels: np.ndarray, *, undo: bool = False) -> None:
        """Scales values, integers only up to `white`, to their dtype's whole range, in place.

        With `undo`, scales them back; integers return to their exact values.
        """
        if self.is_of(pixels.dtype):
            return
        span = self.white - self.black
        if pixels.dtype.kind == "u":
            full = np.iinfo(pixels.dtype).max
            scale = self.white / full if undo else full / self.white
            table = np.rint(np.clip(np.arange(full + 1) * scale, 0, full)).astype(pixels.dtype)
        for rows in row_blocks(pixels):
            block = pixels[rows]
            if pixels.dtype.kind == "u":
                pixels[rows] = table[block]
            elif undo:
                pixels[rows] = block.astype(np.float64) * span + self.black
            else:
                pixels[rows] = (block.astype(np.float64) - self.black) / span

    def change(self, pixels: np.ndarray, other: "ValueRange") -> None:
        """Rescales values stretched from this range as if stretched from another one, in place."""
        if (self.black, self.white) != (other.black, other.white):
            self.stretch(pixels, undo=True)
            other.stretch(pixels)

    def __str__(self) -> str:
        if self.black == 0 and self.source == "values" and self.white in _BITS:
            return f"{_BITS[self.white]} bits, white is {self.white:g}"
        return f"black is {self.black:g}, white is {self.white:g}"


def magnitude(values: np.ndarray) -> float:
    """Returns a power of two near the largest absolute value, 0.5 if all are 0.

    In units of it, squares neither overflow nor vanish, and dividing by it rounds nothing.
    """
    largest = max(abs(float(values.min())), abs(float(values.max())))
    return 2.0 ** (math.frexp(largest)[1] - 1)
