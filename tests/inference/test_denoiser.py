import functools

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

import cbsn
from cbsn.errors import ConfigError, ImageError, ModelError
from cbsn.evaluation.conventions import psnr
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference import passes
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES
from cbsn.inference.engines import tensorflow as tensorflow_engine
from cbsn.inference.engines.tensorflow import TensorFlow
from cbsn.inference.options import DenoiseOptions, Strength
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import simulate_camera
from cbsn.recipes import RECIPES, customised
from tests.cases import slow_except
from tests.known_noise import know_noise


@pytest.fixture(scope="module")
def model(golden):
    return load_model(golden("small/CBSN_small.ckpt"))


@pytest.fixture(scope="module")
def denoise(model):
    return Denoiser(*model)


@pytest.fixture(scope="module")
def noisy():
    return simulate_camera(skimage.data.chelsea())[:200, 100:300]


class Identity:
    """Stands in for a network; what it is given is what it returns."""

    receptive_field_radius = halo = 8
    size_multiple = 6
    blindness = "switched"
    is_local = True
    dimensions = 2
    orientations = range(8)
    grid = 1
    padding_mode = "reflect"
    channels = 3
    dtype_policy = keras.DTypePolicy("float32")

    def __call__(self, x, blind, padding):
        assert not blind
        assert padding == "valid"
        return x[:, 8:-8, 8:-8]


@pytest.mark.parametrize("name", ["samplenoisy1.png", "samplenoisy2.png"])
def test_output_is_the_original_codes(golden, name):
    model = load_model(golden("trained/CBSN_iter201500.ckpt"))
    picture = np.array(Image.open(golden(f"sample_images/{name}")))
    expected = np.array(Image.open(golden(f"trained/infer/{name}")))
    result = Denoiser(*model, DenoiseOptions(rounding="truncate"))(picture)
    off = np.abs(result.astype(int) - expected)
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


def _assert_equal_but_for_rounding(result, expected):
    """Of 8 bits: kernels for tiles of another size, or more of them at once, sum up otherwise.

    Floats then differ by 1e-5 at most, which is 0.0026 levels. So what lies that near to a half, on
    either side, may be rounded the other way: 0.5 % of values that lie anywhere.
    """
    off = np.abs(result.astype(int) - expected)
    assert off.max() <= 1
    assert np.count_nonzero(off) <= max(2, 0.01 * off.size)


@pytest.mark.parametrize("tile", [16, 25, "48"])
def test_tiles_equal_the_whole(model, noisy, tile):
    whole, tiled = (Denoiser(*model, DenoiseOptions(tile=each)) for each in (0, tile))
    for height, width in ((61, 83), (40, 17)):
        crop = noisy[:height, :width]
        _assert_equal_but_for_rounding(tiled(crop), whole(crop))
        unit = (crop / 255).astype(np.float32)
        np.testing.assert_allclose(tiled(unit), whole(unit), atol=1e-5)


LOCAL = {
    "cbsn": {"filters": 4, "num_modules": 2},
    "apbsn": {"filters": 4, "num_modules": 2},
    "ssbsn": {"filters": 4, "num_modules": 1, "num_attention": 0},
    "tmbsn": {"filters": 4, "depth": 2},
    "cbsn-hole": {"filters": 4, "depth": 1, "hole": 5},
    "n2v-unet": {"filters": 8, "depth": 2},
    "n2v2-unet": {"filters": 8, "depth": 2},
    "pn2v-unet": {"filters": 8, "depth": 2},
    "dil-unet": {"filters": 8, "depth": 2},
    "n2n-resunet": {"filters": 8, "depth": 2, "reduction": 0},
    "distill": {"filters": 8, "depth": 2},
    "photo": {"filters": 8, "depth": 2},
    "photo-large": {"filters": 8, "depth": 3},
}
"""Sizes at which tiles make the whole: without attention or excitation."""

OF_PICTURES = sorted(name for name, recipe in RECIPES.items() if recipe.patch_depth == 1)
CAN_REFINE = ("apbsn", "cbsn", "cbsn-hole", "ssbsn", "tmbsn")


@functools.cache
def _small_model(name):
    """A recipe and its network, with weights that make a picture of a picture."""
    keras.utils.set_random_seed(1)
    recipe = customised(name, **LOCAL[name])
    network = recipe.build_network()
    know_noise(network)
    if recipe.normalization == "0-255":
        for weight in network.weights:
            weight.assign(weight * 2)
        # As bright as a picture, with a contrast of about 20.
        x = np.random.default_rng(0).uniform(0, 255, (1, 60, 60, 3)).astype("float32")
        y = np.asarray(network(x))
        last = network.tail[-1]
        last.kernel.assign(last.kernel * 20 / y.std())
        last.bias.assign([128, 110, 140] - y.mean(axis=(0, 1, 2)) * 20 / y.std())
    return recipe, network


@pytest.mark.parametrize(
    ("name", "r3"),
    slow_except(
        [(name, False) for name in OF_PICTURES] + [("cbsn", True), ("apbsn", True)],
        *[("cbsn", False), ("cbsn", True), ("distill", False), ("n2v-unet", False)],
    ),
)
def test_every_recipe_denoises_by_tiles_and_in_place(noisy, name, r3):
    recipe, network = _small_model(name)
    cases = [(noisy[:53, :67], False)]
    if r3 or name == "photo":
        cases.append((noisy[:20, :31, 0], True))
    for crop, self_ensemble in cases:
        options = {"r3": r3, "seed": 3, "self_ensemble": self_ensemble}
        expected = Denoiser(recipe, network, DenoiseOptions(tile=0, **options))(crop)
        assert expected.shape == crop.shape
        assert 1 < expected.std() < 90
        picture = crop.copy()
        denoise = Denoiser(recipe, network, DenoiseOptions(tile=16, **options))
        assert denoise(picture, in_place=True) is picture
        _assert_equal_but_for_rounding(picture, expected)


@pytest.mark.parametrize("name", sorted({*OF_PICTURES} - {*CAN_REFINE}))
def test_networks_that_are_never_blind_cannot_refine(name):
    with pytest.raises(ConfigError, match="omit --r3"):
        Denoiser(*_small_model(name), DenoiseOptions(r3=True))


@pytest.mark.parametrize("name", slow_except(CAN_REFINE, "apbsn", "cbsn"))
def test_refinement_is_the_recipes_choice_unless_told(noisy, name):
    model = _small_model(name)
    assert Denoiser(*model).r3 == (name in ("apbsn", "ssbsn"))
    with_r3, without = (Denoiser(*model, DenoiseOptions(r3=r3)) for r3 in (True, False))
    assert with_r3.r3 and not without.r3
    crop = noisy[:20, :20]
    assert (with_r3(crop) != without(crop)).any()


@pytest.mark.parametrize("name", ["cbsn", "dil-unet"])
def test_a_network_for_gray_takes_colours_one_by_one(noisy, name):
    recipe = customised(name, **LOCAL[name], channels=1)
    network = recipe.build_network()
    crop = noisy[:41, :60]
    for tile in (0, 16):
        denoise = Denoiser(recipe, network, DenoiseOptions(tile=tile))
        result = denoise(crop)
        for channel in range(3):
            _assert_equal_but_for_rounding(denoise(crop[..., channel]), result[..., channel])


def test_noise_beyond_the_range_is_taken_where_white_is_given(noisy):
    denoise = Denoiser(*_small_model("dil-unet"))
    crop = (noisy[:32, :32] / 64 - 1).astype("float32")
    result = denoise(crop, white=1)
    assert (crop.min() < 0, crop.max() > 1) == (True, True)
    assert (result.min() >= 0, result.max() <= 1) == (True, True)
    crop[3, 4] = np.nan
    with pytest.raises(ImageError, match="finite"):
        denoise(crop)
    with pytest.raises(ImageError, match="finite"):
        denoise(crop, white=1)


@pytest.mark.parametrize(
    ("shape", "tile"),
    [((61, 83, 3), 6), ((130, 20, 4), 48), ((97, 40), 16), ((1, 1, 3), 6), ((33, 5, 2), "auto")],
)
def test_in_place_is_the_same(denoise, model, random, shape, tile):
    image = random.integers(0, 256, shape).astype(np.uint8)
    expected = denoise(image)
    result = Denoiser(*model, DenoiseOptions(tile=tile))(image, in_place=True)
    assert result is image
    _assert_equal_but_for_rounding(image, expected)


def test_one_graph_serves_pictures_of_all_sizes(random):
    traces = []

    class Counting(Identity):
        def __call__(self, x, **options):
            traces.append(x.shape)  # runs while a graph is traced, and at no other time
            return super().__call__(x, **options)

    denoise = Denoiser(RECIPES["cbsn"], Counting(), DenoiseOptions(tile=24))
    for height, width in zip(range(1, 100, 9), range(80, 0, -8), strict=False):
        denoise(random.random((height, width, 3)))
    assert len(traces) == 1


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that there is a GPU, which computes few pixels at once."""
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: True)
    monkeypatch.setattr(passes, "GPU_PIXELS", 6_000_000)


@pytest.mark.parametrize("name", slow_except(OF_PICTURES, "cbsn", "distill"))
def test_a_gpu_is_given_one_shape(noisy, gpu, monkeypatch, name):
    """Each new one costs it a while; the pixels are those of the whole picture."""
    recipe, network = _small_model(name)
    shapes = set()
    compile_network = TensorFlow.compile

    def counting(*args, **options):
        run = compile_network(*args, **options)
        return lambda x: shapes.add(x.shape) or run(x)

    whole = Denoiser(recipe, network, DenoiseOptions(tile=0, r3=False))
    monkeypatch.setattr(TensorFlow, "compile", counting)
    tiled = Denoiser(recipe, network, DenoiseOptions(tile=24, r3=False))
    window = 24 + 2 * network.halo
    share = 24 / passes.auto_side(network, ENGINES["tensorflow"])
    at_once = max(1, int(6_000_000 * share**2) // window**2)
    for height, width in ((171, 160), (144, 199)):
        crop = noisy[:height, :width]
        _assert_equal_but_for_rounding(tiled(crop), whole(crop))
    assert shapes == {(at_once, window, window, 3)}


def test_a_gpu_sees_what_a_cpu_sees(noisy, monkeypatch):
    """Of networks that are not local, whose tiles matter."""
    for name, changes in (
        ("ssbsn", {"filters": 4, "num_modules": 1, "num_attention": 1}),
        ("n2n-resunet", {"filters": 8, "depth": 2}),
    ):
        recipe = customised(name, **changes)
        network = recipe.build_network()
        assert not network.is_local
        results = []
        for there in (False, True):
            monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda there=there: there)
            denoise = Denoiser(recipe, network, DenoiseOptions(tile=24))
            results.append(denoise(noisy[:60, :70] / 255))
        np.testing.assert_allclose(*results, rtol=0, atol=1e-5)


def test_rounding(noisy):
    class Shifted(Identity):
        def __call__(self, x, **options):
            return super().__call__(x, **options) + 0.6 / 255 / deviation

    crop = noisy[:20, :20]
    deviation = (crop / 255).std(axis=(0, 1)).astype(np.float32)
    for rounding, step in (("round", 1), ("truncate", 0)):
        result = Denoiser(RECIPES["cbsn"], Shifted(), DenoiseOptions(rounding=rounding))(crop)
        np.testing.assert_array_equal(result, np.minimum(crop.astype(int) + step, 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 1), (9, 11, 2), (9, 11, 3), (9, 11, 4), (1, 1)])
def test_shape_dtype_and_alpha_survive(denoise, random, shape, dtype):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    image = (random.random(shape) * top).astype(dtype)
    before = image.copy()
    result = denoise(image)
    assert (result.shape, result.dtype) == (shape, dtype)
    np.testing.assert_array_equal(image, before)
    if shape[2:] in ((2,), (4,)):
        np.testing.assert_array_equal(result[..., -1], image[..., -1])
    if result.dtype.kind == "f":
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (7, 1, 3), (2, 2, 3), (300, 1, 3)])
def test_small_and_narrow_pictures(denoise, random, shape):
    image = random.integers(0, 256, shape).astype(np.uint8)
    assert denoise(image).shape == shape


def test_flat_pictures_stay_finite(denoise):
    image = np.full((12, 12, 3), 255, np.uint8)
    assert np.abs(denoise(image).astype(int) - 255).max() < 30


def test_gray_is_three_equal_channels_averaged(model, noisy):
    class Tinted(Identity):
        def __call__(self, x, **options):
            return super().__call__(x, **options) * np.float32([0.9, 0.5, 0.7])

    denoise = Denoiser(model[0], Tinted())
    gray = noisy[:30, :30, 0] / 255
    rgb = denoise(np.stack([gray] * 3, axis=-1))
    np.testing.assert_allclose(denoise(gray), rgb.mean(axis=-1), atol=1e-6)


def test_16_bits_are_used(denoise, noisy):
    crop = noisy[:30, :30]
    deep = denoise(crop.astype(np.uint16) * 257)
    assert len(np.unique(deep)) > 256
    assert np.abs(deep / 257 - denoise(crop)).max() < 0.51


@pytest.mark.parametrize(("options", "tiles"), [({}, 6), ({"r3": True}, 12)])
@pytest.mark.parametrize("self_ensemble", [False, True])
def test_shares_of_the_work_add_up(model, random, options, tiles, self_ensemble):
    reported = []
    image = random.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    denoise = Denoiser(*model, DenoiseOptions(tile=20, self_ensemble=self_ensemble, **options))
    denoise(image, reported.append)
    assert len(reported) == tiles * (8 if self_ensemble else 1)
    assert sum(reported) == pytest.approx(1)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), np.int32), "dtype int32"),
        (np.zeros((4, 4), bool), "dtype bool"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.array([[0.5, np.nan]]), "NaN"),
        (np.array([[0.5, np.inf]]), "infinity"),
    ],
)
def test_unusable_pictures_say_what_was_received(denoise, image, words):
    with pytest.raises(ImageError, match=words):
        denoise(image)


def test_broken_weights_are_an_error(model, random):
    class Broken(Identity):
        def __call__(self, x, **options):
            return super().__call__(x, **options) * np.float32("nan")

    with pytest.raises(ModelError, match="not finite"):
        Denoiser(model[0], Broken())(random.random((5, 5)))


def test_load_denoiser(golden, denoise, noisy):
    loaded = cbsn.load_denoiser(golden("small/CBSN_small.ckpt"), tile=64, precision="float32")
    _assert_equal_but_for_rounding(loaded(noisy[:70, :70]), denoise(noisy[:70, :70]))


def test_validation_figure_of_the_original_code(golden):
    """The last line of the original training's log; it does not pad, and its mean is float32."""
    recipe, network = load_model(golden("trained/CBSN_iter201500.ckpt"))
    data = np.load(golden("trained/val_set.npz"))
    noisy = (data["noisy_uint8"] / 255).astype("float32")
    mean, deviation = (f(noisy, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    result = np.asarray(network((noisy - mean) / deviation)) * deviation + mean
    result = np.rint(result.clip(0, 1) * 255).astype("uint8")
    values = [psnr(clean, r) for clean, r in zip(data["gt_uint8"], result, strict=True)]
    assert np.mean(values[:4]) == pytest.approx(25.889074124510337, abs=1e-4)
    assert np.mean(values) == pytest.approx(25.4118, abs=1e-4)
    # Ours reflects at the edges and takes the mean exactly: as good, not equal.
    denoise = Denoiser(recipe, network)
    ours = [psnr(c, denoise(n)) for n, c in zip(data["noisy_uint8"], data["gt_uint8"], strict=True)]
    assert np.mean(ours) == pytest.approx(25.41, abs=0.2)


@pytest.mark.parametrize(
    ("white", "dtype"),
    [(w, np.uint16) for w in (255, 1023, 4095, 16383)]
    + [(w, np.float32) for w in (1 / 64, 255, 70_000)],
)
def test_values_of_any_range_come_out_in_it(denoise, noisy, white, dtype):
    unit = noisy[:40, :50].astype(np.float64) / noisy[:40, :50].max()
    values = unit * white
    image = (np.rint(values) if dtype is np.uint16 else values).astype(dtype)
    expected = denoise((image / white).astype(np.float32), white=1)
    result = denoise(image)
    assert result.dtype == dtype
    # The result is rounded to a level of its own, by half of one. What the network is given is
    # rounded to one of 65,535, and it makes at most some tens of that.
    tolerance = 0.5 / white + 32 * 0.5 / 65535 if dtype is np.uint16 else 1e-5
    np.testing.assert_allclose(result / white, expected, atol=tolerance)
    stated = denoise(image, white=white)
    np.testing.assert_allclose(stated / white, result / white, atol=1e-5)


def test_a_range_below_zero_comes_out_in_it(denoise, noisy):
    unit = noisy[:40, :50].astype(np.float64) / 255
    unit = (unit - unit.min()) / (unit.max() - unit.min())
    result = denoise((unit * 50 - 20).astype(np.float32))
    expected = denoise(unit.astype(np.float32), white=1)
    np.testing.assert_allclose((result + 20) / 50, expected, atol=1e-5)


def test_integers_above_white_are_refused(denoise):
    with pytest.raises(ImageError, match=r"up to 5000.*--white 4095"):
        denoise(np.full((3, 3), 5000, np.uint16), white=4095)


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">f8"])
def test_byte_order_does_not_matter(denoise, random, dtype):
    image = random.random((20, 30, 3)) if "f" in dtype else random.integers(0, 65536, (20, 30, 3))
    native = image.astype(np.dtype(dtype).newbyteorder("="))
    foreign = native.astype(dtype)
    result = denoise(foreign)
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, denoise(native))
    np.testing.assert_array_equal(denoise(foreign, in_place=True), result)
    np.testing.assert_array_equal(foreign, result)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_under_full_transparency_does_not_matter(model, random, channels):
    colors = random.integers(0, 256, (60, 70, channels)).astype(np.uint8)
    y, x = np.mgrid[:60, :70]
    inside = np.hypot(y - 30, x - 35) < 20
    alpha = np.where(inside, 255, 0).astype(np.uint8)
    denoise = Denoiser(*model, DenoiseOptions(tile=24))
    results = []
    for hidden in (0, 255, random.integers(0, 256, colors.shape)):
        image = np.where(inside[..., None], colors, hidden).astype(np.uint8)
        image = np.concatenate([image, alpha[..., None]], axis=-1)
        results.append(denoise(image))
        np.testing.assert_array_equal(results[-1][..., -1], alpha)
        np.testing.assert_array_equal(results[-1][~inside], image[~inside])  # as they were
    for result in results[1:]:
        np.testing.assert_array_equal(result[inside], results[0][inside])
    assert (results[0][inside][:, :channels] != colors[inside]).any()


SHARES = [(0.5, None), (0, 1), (1, 0), (0.3, 0.8)]


@pytest.mark.parametrize("shares", SHARES)
def test_floats_of_less_strength_are_blended(model, denoise, random, shares):
    weaker = Denoiser(*model, DenoiseOptions(strength=shares[0], color_strength=shares[1]))
    for channels in (1, 2, 3, 4):
        image = random.random((33, 41, channels))
        hidden = random.random((33, 41)) < (0.2 if channels % 2 == 0 else 0)
        image[hidden, -1] = 0
        result, denoised = weaker(image), denoise(image)
        colors = channels - (channels + 1) % 2
        blended = Strength(*shares).blend(image[..., :colors], denoised[..., :colors])
        # Both come from the same bits of the network, and are not rounded to less than float64.
        expected = np.concatenate([blended.clip(0, 1), image[..., colors:]], axis=-1)
        expected[hidden] = image[hidden]
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
@pytest.mark.parametrize("channels", [2, 4])
def test_a_model_of_stacks_leaves_hidden_colours(channels, random):
    """They make no difference to others, and are sure."""
    scaling = Scaling("given", (Scale(0.0, 200.0, 90.0, 30.0),)).to_dict()
    recipe = customised("n2v-unet", filters=4, depth=1, channels=1, scaling=scaling)
    denoise = Denoiser(recipe, recipe.build_network(), DenoiseOptions(engine="tensorflow"))
    image = random.integers(0, 200, (64, 72, channels)).astype("uint8")
    image[..., -1] = 255
    image[20:, :40, -1] = 0
    hidden = image[..., -1] == 0
    other = image.copy()
    other[hidden, :-1] = 7
    first, second = denoise(image), denoise(other)
    np.testing.assert_array_equal(first[~hidden], second[~hidden])
    np.testing.assert_array_equal(first[hidden], image[hidden])
    assert (first[~hidden] != image[~hidden]).any()
    clean, sigma = denoise.with_uncertainty(image)
    np.testing.assert_array_equal(clean[hidden], image[hidden])
    assert not sigma[hidden].any()


@pytest.mark.parametrize("rounding", ["round", "truncate"])
def test_integers_are_blended_before_they_are_rounded(model, random, rounding):
    denoise = Denoiser(*model, DenoiseOptions(rounding=rounding, strength=0.3, color_strength=0.8))
    for dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        image = random.integers(0, white, (33, 41, 3), dtype, endpoint=True)
        floats = denoise(image / white, white=1) * white
        # The network's input differs by a rounding of float32, which it makes 1e-5 of at most.
        slack = 1e-5 * white
        low, high = (-0.5, 0.5) if rounding == "round" else (-1, 0)
        off = denoise(image) - floats
        assert low - slack <= off.min() and off.max() <= high + slack


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(("color", "ensemble"), [(None, False), (0, True)])
def test_no_strength_gives_the_picture_back(model, random, dtype, color, ensemble):
    options = {"strength": 0, "color_strength": color, "self_ensemble": ensemble}
    denoise = Denoiser(*model, DenoiseOptions(rounding="truncate", **options))
    for shape in ((20, 30), (20, 30, 2), (20, 30, 3), (20, 30, 4)):
        image = (300 * random.random(shape) - (50 if "f" in np.dtype(dtype).str else 0)) % 251
        image = image.astype(dtype)
        for white in (None, 255):
            shared = []
            result = denoise(image, shared.append, white=white)
            assert result is not image and sum(shared) == 1
            np.testing.assert_array_equal(result, image, strict=True)
        assert denoise(image, in_place=True) is image
        np.testing.assert_array_equal(image, result)


def test_full_strength_changes_no_bit(model, denoise, noisy, random):
    whole = Denoiser(*model, DenoiseOptions(strength=1, color_strength=1))
    floats = random.random((33, 41, 3), np.float32)
    for image in (noisy[:33, :41], noisy[:33, :41].astype(np.uint16) * 257, floats, floats - 0.5):
        np.testing.assert_array_equal(whole(image), denoise(image), strict=True)


@pytest.mark.parametrize(
    ("name", "r3", "self_ensemble"),
    [("cbsn", False, False), ("apbsn", True, False), ("cbsn", True, True)],
)
def test_less_strength_by_tiles_and_in_place(noisy, name, r3, self_ensemble):
    """What is blended must be noisy still where it is overwritten tile by tile."""
    recipe, network = _small_model(name)
    options = {"r3": r3, "self_ensemble": self_ensemble}
    weaker = {**options, "strength": 0.4, "color_strength": 0.7}
    crop = noisy[:20, :31] if self_ensemble else noisy[:51, :63]
    expected = Denoiser(recipe, network, DenoiseOptions(tile=0, **weaker))(crop)
    picture = crop.copy()
    tiled = Denoiser(recipe, network, DenoiseOptions(tile=16, **weaker))
    assert tiled(picture, in_place=True) is picture
    _assert_equal_but_for_rounding(picture, expected)
    whole = Denoiser(recipe, network, DenoiseOptions(tile=0, **options))(crop)
    blended = Strength(0.4, 0.7).blend(crop.astype(float), whole.astype(float))
    # Each channel of `whole` was rounded by half a level, and they are mixed by weights that
    # add up to 0.7 and 0.3 times those of the luma.
    assert np.abs(picture - blended.clip(0, 255)).max() <= 0.5 + 0.5 * (0.7 + 0.3) + 0.01


@pytest.mark.parametrize("white", [4095, None])
def test_less_strength_in_a_range_of_ones_own(model, denoise, noisy, white):
    image = np.minimum(noisy[:40, :50].astype(np.uint16) * 16, 4095)
    result = Denoiser(*model, DenoiseOptions(strength=0.5))(image, white=white)
    expected = (image.astype(float) + denoise(image, white=white)) / 2
    # The one is rounded to a level once stretched and once back, the other is half as much off.
    assert np.abs(result - expected).max() <= 1 + 1e-9
    floats = image.astype(np.float32) - 100
    result = Denoiser(*model, DenoiseOptions(strength=0.5))(floats)
    expected = (floats.astype(float) + denoise(floats)) / 2
    np.testing.assert_allclose(result, expected, atol=4095 * 1e-6)


def _each(denoise, images, white=None):
    return np.stack([denoise(image, white=white) for image in images])


@pytest.mark.parametrize(
    ("name", "r3", "self_ensemble", "tile"),
    [("cbsn", False, True, 16), ("apbsn", True, False, "auto"), ("photo", False, False, 16)],
)
def test_a_batch_is_each_of_its_pictures(random, name, r3, self_ensemble, tile):
    recipe, network = _small_model(name)
    options = {"r3": r3, "self_ensemble": self_ensemble, "tile": tile, "seed": 7}
    denoise = Denoiser(recipe, network, DenoiseOptions(**options))
    for shape in ((5, 20, 20, 3), (2, 13, 31, 1), (1, 6, 6, 3)):
        # Each in a range of its own, so that statistics matter.
        levels = random.uniform(0.2, 1, (shape[0], 1, 1, 1))
        images = (random.random(shape) * levels).astype(np.float32)
        before = images.copy()
        result = denoise.batch(images, white=1.0)
        assert result.dtype == images.dtype
        np.testing.assert_array_equal(images, before)
        np.testing.assert_allclose(result, _each(denoise, images, 1.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64, ">u2", ">f4"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_batch_takes_what_a_picture_may_be(denoise, random, dtype, channels):
    images = random.random((4, 11, 14, channels))
    if np.dtype(dtype).itemsize == 2:  # some use fewer than 16 bits
        images *= np.reshape([4000, 65535, 255, 9], (4, 1, 1, 1))
    elif dtype == np.uint8:
        images *= 255
    images = images.astype(dtype)
    if channels % 2 == 0:
        images[1, ..., -1] = 0
        images[2, :5, ..., -1] = 0
    result = denoise.batch(images)
    assert result.dtype == images.dtype
    expected = _each(denoise, images)
    atol = 1 if np.dtype(dtype).kind == "u" else 1e-5
    np.testing.assert_allclose(result.astype(float), expected.astype(float), rtol=0, atol=atol)
    np.testing.assert_array_equal(result[..., 3:], images[..., 3:])


def test_a_batch_goes_through_the_network_together(random):
    calls = []

    class Counting(Identity):
        def __call__(self, x, **options):
            tf.py_function(lambda shape: calls.append(tuple(shape.numpy())), [tf.shape(x)], [])
            return super().__call__(x, **options)

    images = random.random((6, 24, 24, 3))
    for self_ensemble, count in ((False, 6), (True, 48)):
        calls.clear()
        denoise = Denoiser(RECIPES["cbsn"], Counting(), DenoiseOptions(self_ensemble=self_ensemble))
        np.testing.assert_allclose(denoise.batch(images), images, atol=1e-6)
        assert calls == [(count, 40, 40, 3)]


def test_a_batch_of_none_and_other_arrays_that_are_none(denoise):
    assert denoise.batch(np.zeros((0, 9, 9, 3), np.uint8)).shape == (0, 9, 9, 3)
    for shape in ((9, 9, 3), (2, 9, 9, 5), (2, 0, 9, 3)):
        with pytest.raises(ImageError, match=r"batch.*Received"):
            denoise.batch(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match=r"A picture of the batch.*finite"):
        denoise.batch(np.full((2, 3, 3, 3), np.nan))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_outliers_of_pictures_are_repaired_before(channels, random):
    """The result is that of the picture without them; alpha, and what it hides, stays."""
    recipe, network = _small_model("n2v-unet")
    picture = random.normal(100, 5, (64, 64, channels)).clip(0, 255).astype("uint8")
    colors = 3 if channels > 2 else 1
    if channels % 2 == 0:
        picture[..., -1] = 255
        picture[40:, 40:, -1] = 0
    picture[20, 30, :colors] = 250
    mended = picture.copy()
    near = np.delete(picture[19:22, 29:32, :colors].reshape(9, -1), 4, axis=0)
    mended[20, 30, :colors] = np.rint(np.median(near, axis=0))
    repairing = Denoiser(recipe, network, DenoiseOptions(repair="pixels"))
    result = repairing(picture)
    assert repairing.repaired == 1
    np.testing.assert_array_equal(result, Denoiser(recipe, network)(mended))
    assert (Denoiser(recipe, network)(picture) != result).any()


def test_a_wrong_repair_is_told_at_once():
    with pytest.raises(ConfigError, match="Received: --repair spots"):
        DenoiseOptions(repair="spots")
