import numpy as np
import pytest

from cbsn.errors import ImageError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.joint_denoiser import JointDenoiser
from cbsn.inference.low_frequencies import with_low_frequencies
from cbsn.recipes import customised


@pytest.fixture(scope="module")
def denoisers():
    recipes = (
        customised("distill", filters=4, depth=1),
        customised("cbsn", filters=4, num_modules=1),
    )
    return [Denoiser(recipe, recipe.build_network()) for recipe in recipes]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((20, 25), "uint8"), ((20, 25, 2), "float32"), ((9, 8, 3), "uint16"), ((1, 1, 4), "uint8")],
)
def test_it_is_the_mean_with_the_teachers_colours_mended(denoisers, random, shape, dtype):
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    image = (random.random(shape) * full).astype(dtype)
    shares = []
    denoised = JointDenoiser(*denoisers)(image, shares.append)
    assert denoised.shape == shape and denoised.dtype == dtype
    assert sum(shares) == pytest.approx(1)
    planes = image.reshape(*shape[:2], -1)
    colors = planes[..., : 3 if planes.shape[-1] >= 3 else 1]
    noisy = colors.astype("float32") / np.float32(full)
    student, teacher = (denoise(noisy) for denoise in denoisers)
    mean = (student + with_low_frequencies(noisy, teacher)) / 2
    result = denoised.reshape(planes.shape)
    np.testing.assert_allclose(result[..., : mean.shape[-1]] / full, mean, atol=0.501 / full)
    np.testing.assert_array_equal(result[..., mean.shape[-1] :], planes[..., mean.shape[-1] :])
    assert JointDenoiser(*denoisers)(image, in_place=True) is image
    np.testing.assert_array_equal(image, denoised)


def test_what_is_no_picture_is_refused(denoisers):
    with pytest.raises(ImageError, match="dtype int64"):
        JointDenoiser(*denoisers)(np.zeros((4, 4, 3), int))
    with pytest.raises(ImageError, match=r"shape \(4, 4, 5\)"):
        JointDenoiser(*denoisers)(np.zeros((4, 4, 5), np.uint8))
