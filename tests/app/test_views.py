import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from cbsn.app.views import (
    GAINS,
    TILE,
    View,
    eight_bits,
    heat_of,
    orientation_of_picture,
    png,
    removed_tile,
)
from cbsn.images.image_files import read_picture
from cbsn.value_range import to_unit


def _whole(view, level=0):
    """All tiles of a level, put together."""
    width, height = (-(-side // 2**level) for side in view.size)
    rows = [
        np.concatenate([view.tile(level, x, y) for x in range(-(-width // TILE))], axis=1)
        for y in range(-(-height // TILE))
    ]
    return np.concatenate(rows)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiles_are_the_picture(tmp_path, random, channels):
    pixels = random.integers(0, 256, (TILE + 60, 2 * TILE + 1, channels), dtype=np.uint8)
    view = View(tmp_path, "view", pixels)
    assert view.size == (2 * TILE + 1, TILE + 60)
    assert np.array_equal(_whole(view), pixels)


def test_levels_are_means_of_four_pixels(tmp_path, random):
    pixels = random.integers(0, 256, (TILE + 101, 2 * TILE + 4, 3), dtype=np.uint8)
    view = View(tmp_path, "view", pixels)
    assert view.levels == 3
    even = pixels[: TILE + 100].reshape((TILE + 100) // 2, 2, TILE + 2, 2, 3)
    expected = np.floor(even.mean(axis=(1, 3)) + 0.5)
    half = _whole(view, 1)
    assert half.shape == (TILE // 2 + 51, TILE + 2, 3)
    assert np.array_equal(half[:-1], expected)
    # The last row has no partner.
    pairs = pixels[-1].reshape(TILE + 2, 2, 3).mean(axis=1)
    assert np.array_equal(half[-1], np.floor(pairs + 0.5))


@pytest.mark.parametrize("place", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (-1, 0, 0), (0, -1, 0)])
def test_there_is_nothing_beyond(tmp_path, place):
    view = View(tmp_path, "view", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(KeyError):
        view.tile(*place)


def test_a_deleted_view_has_no_tiles(tmp_path):
    view = View(tmp_path, "view", np.zeros((8, 9, 3), np.uint8))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(KeyError):
        view.tile(0, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, random, orientation):
    pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(tmp_path / "turned.png")
    assert orientation_of_picture(picture) == orientation
    view = View(tmp_path, "view", picture.pixels, orientation_of_picture(picture))
    assert np.array_equal(view.tile(0, 0, 0), expected)


def test_other_dtypes_are_scaled():
    assert eight_bits(np.array([0, 257, 65535], np.uint16)).tolist() == [0, 1, 255]
    floats = np.array([-1, 0, 0.5, 1, 2, np.nan], np.float32)
    assert eight_bits(floats).tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("gain", GAINS)
def test_what_was_removed_is_around_gray(random, gain):
    noisy, denoised = random.integers(100, 108, (2, 4, 5, 4), dtype=np.uint8)
    removed = removed_tile(noisy, denoised, gain)
    expected = 128 + gain * (noisy.astype(int) - denoised)[..., :3]
    assert np.array_equal(removed[..., :3], expected.clip(0, 255))
    assert np.array_equal(removed[..., 3], noisy[..., 3])


def test_heat_goes_from_black_to_yellow(random):
    sigma = random.uniform(0, 0.1, (50, 60, 3)).astype(np.float32)
    sigma[0, 0], sigma[0, 1] = 0, 1
    peak, show = heat_of(sigma)
    shown = show(sigma)
    assert shown.shape == (50, 60, 3) and shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1].tolist() == [252, 253, 191]
    levels = 255 * to_unit(sigma).mean(axis=-1)
    assert np.percentile(levels, 98) <= peak < np.percentile(levels, 98) + 1.001


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiles_are_sent_without_loss(random, channels):
    pixels = random.integers(0, 256, (20, 30, channels), dtype=np.uint8)
    content = png(pixels, b"profile" if channels == 3 else None)
    image = Image.open(io.BytesIO(content))
    assert np.array_equal(np.atleast_3d(np.asarray(image)), pixels)
    assert image.info.get("icc_profile") == (b"profile" if channels == 3 else None)
