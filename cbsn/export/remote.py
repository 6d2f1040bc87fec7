"""Denoising a picture on a server."""

import io

import imagecodecs
import numpy as np

from cbsn.data.picture import Picture
from cbsn.data.pillow_files import write_png
from cbsn.errors import ImageError
from cbsn.export.names import FILES, FLOATS
from cbsn.export.transport import Transport


def denoise_remotely(transport: Transport, picture: Picture) -> Picture:
    """Lets a server denoise one picture.

    Pixels of 8 and 16 bits travel as PNG files, which lose nothing, so that the result does not
    depend on who decodes a JPEG; floats travel as they are. The metadata do not travel.

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
    if pixels.dtype == np.float32:
        result = transport.predict(FLOATS, pixels)
    else:
        file = io.BytesIO()
        write_png(file, Picture(pixels, "PNG"))
        result = _decode(transport.predict(FILES, file.getvalue()))
    if (result.shape, result.dtype) != (pixels.shape, pixels.dtype):
        raise ImageError(
            f"the server returned another kind of picture than {pixels.dtype} {pixels.shape}. "
            f"Received: {result.dtype} {result.shape}"
        )
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
