"""Results of any strength without the network are those of a denoiser with that strength."""

import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions, Strength
from cbsn.value_range import value_range
from tests.cases import slow_except

STRENGTHS = [Strength(1), Strength(0.6), Strength(0.3, 1), Strength(1, 0), Strength(0)]


@pytest.fixture(scope="module")
def photo():
    return Denoiser.load("photo", DenoiseOptions(precision="float32", engine="tensorflow"))


@pytest.fixture(scope="module")
def of_strength(photo):
    """A denoiser of each strength."""
    return {
        strength: Denoiser(
            photo.recipe,
            photo.network,
            DenoiseOptions(strength=strength.luma, color_strength=strength.color),
        )
        for strength in STRENGTHS
    }


def _picture(random, channels, dtype, size=(70, 90)):
    unit = random.normal(0.5, 0.2, (*size, channels)).clip(0, 1)
    pixels = (unit * value_range(dtype)).astype(dtype)
    if channels % 2 == 0:
        pixels[:20, :30, -1] = 0
    return pixels


def _kept(denoise, pixels, **options):
    with denoise.keeping(**options) as kept:
        denoise(pixels, white=value_range(pixels.dtype))
    return kept


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", slow_except((1, 2, 3, 4), 1, 3))
def test_any_strength_equals_a_denoiser_of_that_strength(
    photo, of_strength, random, channels, dtype
):
    pixels = _picture(random, channels, dtype)
    kept = _kept(photo, pixels)
    for strength, denoise in of_strength.items():
        blended = pixels.copy()
        kept.blend(blended, strength)
        assert np.array_equal(blended, denoise(pixels, white=value_range(dtype)))


@pytest.mark.parametrize("how", [{"self_ensemble": True}, {"tile": 32}, {"rounding": "truncate"}])
def test_it_is_of_the_whole_way(photo, random, how):
    pixels = _picture(random, 3, "uint8")
    options = DenoiseOptions(**how)
    kept = _kept(Denoiser(photo.recipe, photo.network, options), pixels)
    weaker = Denoiser(photo.recipe, photo.network, DenoiseOptions(strength=0.5, **how))
    blended = pixels.copy()
    kept.blend(blended, Strength(0.5))
    assert np.array_equal(blended, weaker(pixels, white=255))


def test_it_is_kept_along_with_an_uncertainty(photo, random):
    pixels = _picture(random, 3, "uint8", (96, 96))
    with photo.estimating(), photo.keeping() as kept:
        denoised = photo(pixels, white=255)
    blended = pixels.copy()
    kept.blend(blended, Strength(1))
    assert np.array_equal(blended, denoised)


def test_it_may_lie_on_the_disk(photo, random, tmp_path):
    pixels = _picture(random, 3, "uint8")
    kept = _kept(photo, pixels, path=tmp_path / "kept.npy")
    assert (tmp_path / "kept.npy").stat().st_size >= 4 * pixels.size
    on_disk, in_memory = pixels.copy(), pixels.copy()
    kept.blend(on_disk, Strength(0.7))
    _kept(photo, pixels).blend(in_memory, Strength(0.7))
    assert np.array_equal(on_disk, in_memory)


def test_where_nothing_is_visible_nothing_changes(photo, random):
    pixels = _picture(random, 4, "uint8")
    pixels[..., -1] = 0
    kept = _kept(photo, pixels)
    blended = pixels.copy()
    kept.blend(blended, Strength(1))
    assert np.array_equal(blended, pixels)


def test_models_of_stacks_are_refused(photo):
    denoise = Denoiser(photo.recipe, photo.network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Denoiser, "scaling", property(lambda self: object()))
        with pytest.raises(ConfigError, match="stacks"), denoise.keeping():
            pass
