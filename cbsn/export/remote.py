"""Denoising a picture on a server."""

import imagecodecs
import numpy as np

from cbsn.data.picture import Picture
from cbsn.errors import ImageError
from cbsn.export.names import FILES, FLOATS
from cbsn.export.transport import Transport

_DARK = 2**14
"""16-bit files whose colours stay below are read in a smaller range by the server."""

_FULL = 65535


def denoise_remotely(transport: Transport, picture: Picture) -> Picture:
    """Lets a server denoise one picture.

    Pixels of 8 and 16 bits travel as PNG files, which lose nothing, so that the result does not
    depend on who decodes a JPEG; floats travel as they are, and so do dark pictures of 16 bits,
    whose range the server would find too small. The metadata do not travel.

    Args:
        transport: the way to the server.
        picture: the noisy picture.

    Returns:
        The denoised picture, of the same shape and dtype, with the same metadata.

    Raises:
        ImageError: if the server refuses the picture, fails, does not answer in time, or returns
            anything but a picture of this shape and dtype.
    """
    pixels = picture.pixels
    is_dark = pixels.dtype == np.uint16 and picture.color.max() < _DARK
    if is_dark:
        pixels = pixels / np.float32(_FULL)
    if pixels.dtype == np.float32:
        result = transport.predict(FLOATS, pixels)
    else:
        planes = pixels[..., 0] if pixels.shape[-1] == 1 else pixels  # as encoders want gray
        result = _decode(transport.predict(FILES, imagecodecs.png_encode(planes)))
    if (result.shape, result.dtype) != (pixels.shape, pixels.dtype):
        raise ImageError(
            f"the server returned another kind of picture than {pixels.dtype} {pixels.shape}. "
            f"Received: {result.dtype} {result.shape}"
        )
    if is_dark:
        result = np.rint(np.clip(result, 0, 1) * _FULL).astype(np.uint16)
    return picture.with_pixels(result)


def _decode(png: bytes) -> np.ndarray:
    """The pixels [H, W, C] of a PNG file."""
    try:
        pixels = imagecodecs.png_decode(png)
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(
            f"the server returned what is no PNG file. Received: {len(png)} bytes, {png[:20]!r}"
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels
