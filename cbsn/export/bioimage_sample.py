"""The noisy image that a package of the BioImage Model Zoo has for tests, and its cover."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from PIL import Image

from cbsn.colors import luma
from cbsn.errors import CbsnError, CbsnWarning, ImageError
from cbsn.images.image_files import read_picture
from cbsn.images.picture import squeezed
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.scaling import Scale, without_alpha
from cbsn.images.stacks.stack import Stack
from cbsn.inference.denoiser import Denoiser
from cbsn.noise.cells import simulate_cells
from cbsn.noise.synthetic import simulate_camera
from cbsn.value_range import to_unit

_COVER = 256  # least side in pixels of each half of the cover
_SHOWN = (0.5, 99.5)  # percentiles of the noisy values that the cover shows as black and white


def make_sample(denoiser: Denoiser, sizes: Sequence[int], scale: Scale | None) -> np.ndarray:
    """Simulates a noisy image of the kind that a model was trained on.

    Args:
        denoiser: gives the number of channels.
        sizes: of the spatial axes, in pixels.
        scale: of a model that was trained on stacks, that of the channel; None for pictures.

    Returns:
        float32 [*sizes, C]: a photograph in [0, 1], as a noisy camera sees it, or a plane or volume
        of a stack with the mean and the standard deviation that the model knows.
    """
    channels = denoiser.network.channels
    if scale is None:
        photograph = skimage.data.chelsea()
        # For very large networks; what is added repeats the picture.
        missing = max(0, max(sizes) - min(photograph.shape[:2]))
        photograph = np.pad(photograph, ((0, missing), (0, missing), (0, 0)), "symmetric")
        return _with_channels(to_unit(simulate_camera(_center(photograph, sizes))), channels)
    *depth, height, width = sizes
    count = math.prod(depth) * channels
    frames = [noisy for noisy, _ in simulate_cells(count, height, width)]
    image = np.moveaxis(np.reshape(frames, (channels, *sizes)), 0, -1).astype(np.float64)
    spread = scale.deviation or scale.high - scale.low
    return ((image - image.mean()) / image.std() * spread + scale.mean).astype(np.float32)


def read_sample(
    path: str | Path,
    denoiser: Denoiser,
    sizes: Sequence[int],
    scale: Scale | None,
    channel: int | None,
) -> np.ndarray:
    """Reads the middle of a user's image.

    Args:
        path: a picture, or a stack if the model was trained on stacks: then its middle plane, or
            its middle volume.
        denoiser: gives the number of channels, and whether it denoises volumes.
        sizes: of the spatial axes, in pixels.
        scale: of a model that was trained on stacks, that of the channel; None for pictures.
        channel: of the stack; None for the first.

    Returns:
        float32 [*sizes, C], in [0, 1] or in the values of the stack.

    Raises:
        ImageError: if the file cannot be read, or is too small, or has no such channel.
    """
    try:
        if scale is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CbsnWarning)  # they are about the whole picture
                pixels = to_unit(read_picture(path).color).clip(0, 1)
        else:
            with open_stacks(path) as stacks:
                pixels = _middle(stacks[0], sizes, channel or 0)
    except CbsnError as error:
        # Advice on flags of other commands does not help here.
        reason = "it does not say what its axes are" if "--" in str(error) else str(error)
        raise ImageError(
            f"No test image can be read from {path}: {reason}. Received: --sample {path}"
        ) from error
    if any(size < least for size, least in zip(pixels.shape, sizes, strict=False)):
        needed, found = (" x ".join(map(str, each)) for each in (sizes, pixels.shape[:-1]))
        raise ImageError(
            f"The image for tests must have at least {needed} pixels: use a larger one, or omit "
            f"--sample. Received: {found} pixels, --sample {path}"
        )
    if not np.isfinite(pixels).all():
        raise ImageError(
            "The image for tests holds values that are not finite: use another one. "
            f"Received: --sample {path}"
        )
    return _with_channels(_center(pixels, sizes), denoiser.network.channels).astype(np.float32)


def _middle(stack: Stack, sizes: Sequence[int], channel: int) -> np.ndarray:
    """Returns a plane [H, W, C] or volume [Z, H, W, C] of a channel, from the middle of the rest.

    Of a volume, it has at most as many planes as are needed.
    """
    layout, is_volume = stack.layout, len(sizes) == 3
    if "C" in layout.axes and channel >= layout.size("C"):
        raise ImageError(f"it has {layout.size('C')} channels, counted from 0, not {channel}")
    if is_volume and "Z" not in layout.axes:
        raise ImageError(f"it is no volume, as it has no axis Z ({layout.describe()})")
    places = {axis: size // 2 for axis, size in zip(layout.outer, layout.outer_shape, strict=True)}
    places |= {"C": channel} if "C" in layout.axes else {}
    planes = [places]
    if is_volume:
        first = max(0, (layout.size("Z") - sizes[0]) // 2)
        last = min(layout.size("Z"), first + sizes[0])
        planes = [{**places, "Z": z} for z in range(first, last)]
    read = [stack.read([each[axis] for axis in layout.outer]) for each in planes]
    pixels = np.stack([without_alpha(np.atleast_3d(plane)) for plane in read])
    return pixels if is_volume else pixels[0]


def _center(pixels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    starts = [(size - wanted) // 2 for size, wanted in zip(pixels.shape, sizes, strict=False)]
    return pixels[tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))]


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns [..., C] as gray or RGB, as a network has it."""
    if pixels.shape[-1] == channels:
        return pixels
    return luma(pixels) if channels == 1 else np.repeat(pixels, channels, axis=-1)


def write_tiff(path: Path, image: np.ndarray) -> None:
    """Writes a picture or a volume [..., H, W, C] in float32 as a TIFF file."""
    kind = "rgb" if image.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(path, image if kind == "rgb" else image[..., 0], photometric=kind)


def write_cover(path: Path, noisy: np.ndarray, denoised: np.ndarray) -> None:
    """Writes a PNG of two squares: noisy on the left, denoised on the right.

    Both are shown with the same black and white, those of the noisy one. RGB keeps its colours. Of
    volumes [Z, H, W, C] the middle planes are shown.
    """
    if noisy.ndim == 4:
        noisy, denoised = (each[len(each) // 2] for each in (noisy, denoised))
    black, white = np.percentile(noisy, _SHOWN)
    pair = np.concatenate([noisy, denoised], axis=1)
    shown = (pair - black) / (white - black) if white > black else np.zeros_like(pair)
    image = Image.fromarray(squeezed(np.rint(shown.clip(0, 1) * 255).astype(np.uint8)))
    factor = -(-_COVER // len(noisy))
    # Without smoothing, which would hide the noise.
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)
