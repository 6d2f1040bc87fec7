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
from cbsn.errors import CbsnError, CbsnWarning, ConfigError, ImageError
from cbsn.export.bioimage_description import Axis
from cbsn.images.finding import IMAGE_SUFFIXES
from cbsn.images.image_files import read_picture
from cbsn.images.picture import squeezed
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.scaling import Scale, without_alpha
from cbsn.images.stacks.stack import Stack
from cbsn.inference.denoiser import Denoiser
from cbsn.noise.cells import simulate_cells
from cbsn.noise.synthetic import simulate_camera
from cbsn.value_range import to_unit

# Suffixes of files that hold no stacks.
_PICTURES_ONLY = IMAGE_SUFFIXES - {".tif", ".tiff"}

_COVER = 256  # least side in pixels of each half of the cover
_SHOWN = (0.5, 99.5)  # percentiles of the noisy values that the cover shows as black and white
# Of what a model was trained on: how far the values of a sample may typically be from their mean,
# and how little they must vary.
_FAR, _FLAT = 10, 1e-3


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
    axes: Sequence[Axis],
    sizes: Sequence[int],
    scale: Scale | None,
    channel: int | None,
    letters: str | None = None,
) -> np.ndarray:
    """Reads the middle of a user's image.

    Args:
        path: a picture, or a stack if the model was trained on stacks: then its middle plane, or
            its middle volume.
        denoiser: gives the number of channels.
        axes: the spatial axes, whose sizes must be valid.
        sizes: of these axes, in pixels. Of a smaller image, the largest valid ones are taken.
        scale: of a model that was trained on stacks, that of the channel; None for pictures.
        channel: of the stack; None for the first.
        letters: of the axes of a stack that does not say what they are, see `open_stacks`. Default
            None.

    Returns:
        float32 [*sizes, C], in [0, 1] or in the values of the stack. A volume that has fewer planes
        than are valid is continued by reflection.

    Raises:
        ConfigError: if a picture is given letters.
        ImageError: if the file cannot be read, or is too small, or has no such channel, or holds
            values that cannot be a test of the model.
    """
    if scale is None and letters is not None:
        raise ConfigError(
            f"The model was trained on pictures, which have no axes: omit --axes. Received: --axes "
            f"{letters}"
        )
    try:
        if scale is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CbsnWarning)  # they are about the whole picture
                pixels = to_unit(read_picture(path).color).clip(0, 1)
            shape: tuple[int, ...] = pixels.shape[:2]
        else:
            with open_stacks(path, letters) as stacks:
                pixels = _middle(stacks[0], sizes, channel or 0)
                shape = tuple(map(stacks[0].layout.size, "ZYX"[-len(sizes) :]))
    except CbsnError as error:
        reason = str(error).rstrip(".")
        # Without --axes, advice on flags is on those of other commands.
        if scale is not None and Path(path).suffix.lower() in _PICTURES_ONLY:
            reason = "it is a picture, and the model was trained on stacks"
        elif "--" in reason and letters is None:
            reason = "it does not say what its axes are; name them, such as --axes ZYX"
        raise ImageError(
            f"No test image can be read from {path}: {reason}. Received: --sample {path}"
        ) from error
    # Thin volumes are common, and what continues them changes nothing of what they test.
    least = [1 if axis.name == "z" else axis.least for axis in axes]
    if any(size < needed for size, needed in zip(shape, least, strict=True)):
        needed, found = (" x ".join(map(str, each)) for each in (least, shape))
        raise ImageError(
            f"The image for tests must have at least {needed} pixels: use a larger one, or omit "
            f"--sample. Received: {found} pixels, --sample {path}"
        )
    if not np.isfinite(pixels).all():
        raise ImageError(
            "The image for tests holds values that are not finite: use another --sample. "
            f"Received: --sample {path}"
        )
    missing = [max(0, axis.least - size) for axis, size in zip(axes, shape, strict=True)]
    pixels = np.pad(pixels, [*((0, count) for count in missing), (0, 0)], "reflect")
    sizes = [
        min(wanted, axis.least + max(0, size - axis.least) // axis.step * axis.step)
        for axis, wanted, size in zip(axes, sizes, shape, strict=True)
    ]
    pixels = _center(pixels, sizes)
    _check_values(pixels, scale, path)
    return _with_channels(pixels, denoiser.network.channels).astype(np.float32)


def _check_values(pixels: np.ndarray, scale: Scale | None, path: str | Path) -> None:
    """Raises an ImageError if values test nothing: all alike, or far from what a model knows."""
    values = pixels.astype(np.float64)
    unit = (scale.deviation or scale.high - scale.low) if scale else 1.0
    if values.std() <= _FLAT * unit:
        raise ImageError(
            "The middle of the image for tests is nearly the same everywhere, so it would test "
            f"nothing: use another --sample. Received: values from {values.min():g} to "
            f"{values.max():g}, --sample {path}"
        )
    if scale is None:
        return
    unit = max(unit, scale.high - scale.low)
    if np.median(np.abs(values - scale.mean)) > _FAR * unit:
        raise ImageError(
            "The image for tests is far from what the model was trained on, whose values have a "
            f"mean of {scale.mean:g}, within about {unit:g}: use another --sample. Received: a "
            f"median of {np.median(values):g}, --sample {path}"
        )


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
