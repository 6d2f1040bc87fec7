import dataclasses

import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.inference.engines import ENGINES
from cbsn.inference.passes import Passes, RandomReplacement
from cbsn.inference.pixels import Frame, Units
from cbsn.orientations import NUM_ORIENTATIONS, orient
from tests import rounding

AS_IT_IS = Units(np.zeros(3), np.ones(3), 1.0)


def _denoise(model, x, *, orientation=0, tile=None, **options):
    passes = Passes(*model, ENGINES["tensorflow"], side=tile, **options)
    return _run(passes, x, orientation)


def _run(passes, x, orientation=0):
    """Runs the passes on float32 [H, W, C] in the network's units."""
    result = np.full(x.shape, np.nan, np.float32)
    for _, where, piece in passes([Frame(x, AS_IT_IS, orientation)], lambda share: None):
        result[where] = piece
    return result


@pytest.fixture(params=["apbsn", "ssbsn"])
def name(request):
    return request.param


@pytest.mark.parametrize("size", ["even", "odd"])
def test_sub_images_golden(golden, torch_model, name, size):
    data = np.load(golden(f"{name}/wrapper_denoise.npz"))
    result = _denoise(torch_model(name), data[f"x_{size}"][0], r3=False)
    np.testing.assert_allclose(result, data[f"y_{size}_noR3"][0], rtol=0, atol=5e-3)


@pytest.mark.parametrize("size", ["even", "odd"])
def test_refinement_golden(golden, torch_model, name, size, monkeypatch):
    data = np.load(golden(f"{name}/wrapper_denoise.npz"))
    masks, x = data[f"masks_{size}"], data[f"x_{size}"][0]
    monkeypatch.setattr(
        RandomReplacement,
        "masks",
        lambda self, rows, columns, channels: masks[:, rows[:, None], columns],
    )
    # The original forgets to cut off what it has padded.
    expected = data[f"y_{size}_R3"][0, : x.shape[0], : x.shape[1]]
    result = _denoise(torch_model(name), x)
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-3)
    if name == "apbsn":
        tiled = _denoise(torch_model(name), x, tile=20)
        np.testing.assert_allclose(tiled, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("name", "stride", "case", "width"),
    [("apbsn", 1, "y_even_pd1", 48), ("ssbsn", 5, "y_even_pd5on60x45", 45)],
)
def test_other_strides_golden(golden, torch_model, name, stride, case, width):
    data = np.load(golden(f"{name}/wrapper_denoise.npz"))
    recipe, network = torch_model(name)
    model = dataclasses.replace(recipe, denoise_stride=stride), network
    expected = data[case][0]
    result = _denoise(model, data["x_even"][0, : len(expected), :width], r3=False)
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-3)


def test_self_ensemble_golden(golden, torch_model):
    data = np.load(golden("apbsn/ensemble_crop.npz"))
    passes, x = (
        Passes(*torch_model("apbsn"), ENGINES["tensorflow"], side=None, r3=False),
        data["x"][0],
    )
    total = np.zeros(x.shape, np.float32)
    frames = [
        Frame(orient(x, number), AS_IT_IS, number, orient(total, number))
        for number in range(NUM_ORIENTATIONS)
    ]
    for frame, where, piece in passes(frames, lambda share: None):
        frame.total[where] += piece
    expected = data["y_self_ensemble"][0]
    np.testing.assert_allclose(total / NUM_ORIENTATIONS, expected, rtol=0, atol=5e-3)
    # In another order, they are the same eight.
    ours = {orient(x, number).tobytes() for number in range(NUM_ORIENTATIONS)}
    theirs = {data[f"ensemble_in_{number}"][0].tobytes() for number in range(NUM_ORIENTATIONS)}
    assert ours == theirs


def test_refinement_does_not_depend_on_tiles_but_on_seed_and_orientation(torch_model, random):
    model = torch_model("apbsn")
    x = random.uniform(0, 255, (25, 29, 3)).astype(np.float32)
    whole = _denoise(model, x, seed=5)
    bound = 2 * rounding.of_outputs(model[1]) * np.abs(whole).max()  # of two passes
    np.testing.assert_allclose(_denoise(model, x, tile=16, seed=5), whole, rtol=0, atol=bound)
    for options in ({"seed": 6}, {"seed": 5, "orientation": 1}):
        assert np.abs(_denoise(model, x, **options) - whole).max() > 1


def test_networks_that_see_everything_need_a_border_of_zeros(torch_model):
    recipe, network = torch_model("ssbsn")
    with pytest.raises(ConfigError, match="border='reflect'"):
        Passes(
            dataclasses.replace(recipe, border="reflect"), network, ENGINES["tensorflow"], side=None
        )


def _masks(rows, columns, *, seed=3, orientation=0):
    return RandomReplacement(seed, orientation).masks(np.asarray(rows), np.asarray(columns), 3)


def test_each_value_is_replaced_with_the_probability():
    masks = _masks(range(400), range(50))
    assert masks.shape == (8, 400, 50, 3)
    assert masks.mean() == pytest.approx(0.16, abs=0.002)
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)):
        np.testing.assert_allclose(masks.mean(axis=axes), 0.16, atol=0.05)
    # Independent from value to value: neighbours in any direction, copies included.
    centred = masks - masks.mean()
    for axis in range(4):
        pairs = np.delete(centred, 0, axis) * np.delete(centred, -1, axis)
        assert abs(pairs.mean() / centred.var()) < 0.02


def test_masks_are_functions_of_the_place():
    whole = _masks(range(40), range(50))
    rows, columns = [7, 6, 7, 30], [49, 0, 3]  # reflected, and not in order
    np.testing.assert_array_equal(_masks(rows, columns), whole[:, rows][:, :, columns])
    for key in ({"seed": 4}, {"orientation": 2}):
        assert (_masks(range(40), range(50), **key) != whole).mean() > 0.2


def test_masks_repeat_after_the_table():
    masks = _masks(range(600), range(300))
    np.testing.assert_array_equal(masks[:, 256:512], masks[:, :256])
    np.testing.assert_array_equal(masks[:, :, 256:], masks[:, :, :44])


def test_gray_has_the_masks_of_the_first_channel():
    replacement = RandomReplacement(3, 0)
    rows, columns = np.arange(5), np.arange(7)
    gray = replacement.masks(rows, columns, 1)
    np.testing.assert_array_equal(gray, replacement.masks(rows, columns, 3)[..., :1])
