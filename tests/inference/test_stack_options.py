"""Tests of `cbsn.inference.stack_options`."""

import numpy as np
import pytest

from cbsn.errors import CbsnWarning, ConfigError
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.images.stacks.stack import array_stack
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions, choose_scaling
from cbsn.recipes import customised

SCALING = Scaling("deviation", (Scale(400.0, 450.0, 400.0, 50.0), Scale(0.0, 9.0, 0.0, 9.0)))


def small(**changes):
    """A denoiser with a small network."""
    recipe = customised("distill", filters=4, channels=1, depth=1, **changes)
    options = DenoiseOptions(precision="float32", engine="tensorflow")
    return Denoiser(recipe, recipe.build_network(), options)


@pytest.fixture
def array(random):
    """TCYX, uint16."""
    return random.poisson(400, (5, 2, 24, 40)).astype(np.uint16)


def _ends(scale):
    return scale.low, scale.high, scale.mean, scale.deviation


def test_how_values_are_scaled(array):
    stack = array_stack(array, "TCYX")

    def method(denoisers, normalize="auto"):
        return choose_scaling(stack, denoisers, StackOptions(normalize=normalize), "a.tif")

    pictures, trained = small(), small(scaling=SCALING.to_dict())
    assert method([pictures]).method == "range"
    assert method([pictures], "percentile").method == "percentile"
    with pytest.warns(CbsnWarning, match=r"a.tif: values .* unlike"):  # of the second channel
        found = method([trained])
    assert [_ends(each) for each in found.channels] == [_ends(each) for each in SCALING.channels]
    # Which pixels are faulty is a matter of the stack.
    own = method([pictures])
    assert [each.most for each in found.channels] == [each.most for each in own.channels]
    assert method([trained], "range").channels == method([pictures]).channels
    assert method([trained], "0,1000").of(1).high == 1000
    with pytest.raises(ConfigError, match="no scaling of its own"):
        method([pictures], "model")
    three = Scaling("range", SCALING.channels + SCALING.channels[:1])
    with pytest.raises(ConfigError, match=r"3 channels, and a\.tif has 2"):
        method([small(scaling=three.to_dict())])
    single = Scaling("range", SCALING.channels[:1])
    first = small(scaling=single.to_dict())
    for models in [first], [first, first]:
        assert [_ends(each) for each in method(models).channels] == [_ends(single.of(0))] * 2


def test_channels_have_the_scales_of_their_models(array):
    """Also if each model knows all channels."""
    array[:, 1] %= 25
    stack = array_stack(array, "TCYX")
    trained = small(scaling=SCALING.to_dict())
    for models in [trained], [trained, trained]:
        found = choose_scaling(stack, models, StackOptions(), "a.tif")
        assert [each.mean for each in found.channels] == [400.0, 0.0]
    three = Scaling("range", SCALING.channels + SCALING.channels[:1])
    with pytest.raises(ConfigError, match=r"3 channels, and a\.tif has 2"):
        choose_scaling(stack, [trained, small(scaling=three.to_dict())], StackOptions(), "a.tif")


def test_only_channels_that_are_selected_are_compared_with_the_training(array, recwarn):
    """A model of one channel fits a stack whose other channel has other values."""
    array[:, 1] %= 25
    stack, model = array_stack(array, "TCYX"), small(scaling=SCALING.to_dict())
    own = small(scaling=Scaling("deviation", SCALING.channels[1:]).to_dict())
    choose_scaling(stack, [own], StackOptions(select="c=1"), "a.tif")
    choose_scaling(stack, [model], StackOptions(select="c=-1"), "a.tif")
    assert not recwarn
    with pytest.warns(CbsnWarning, match="unlike"):
        choose_scaling(stack, [own], StackOptions(select="c=0"), "a.tif")


def test_photographs_keep_their_whole_range(random):
    rgb = random.integers(0, 100, (2, 24, 40, 3)).astype(np.uint8)
    found = choose_scaling(array_stack(rgb, "TYXS"), [small()], StackOptions(), "a.tif")
    assert (found.of(0).low, found.of(0).high) == (0, 255)
    deep = (rgb.astype(np.uint16) + 900) * 4  # of 12 bits
    found = choose_scaling(array_stack(deep, "TYXS"), [small()], StackOptions(), "a.tif")
    assert (found.of(0).low, found.of(0).high) == (0, 4095)
    opaque = np.concatenate([deep, np.full_like(deep[..., :1], 65535)], axis=-1)
    again = choose_scaling(array_stack(opaque, "TYXS"), [small()], StackOptions(), "a.tif")
    assert again == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"axes": "TZ"}, "--axes"),
        ({"axes": "QYX"}, "--axes"),
        ({"select": "t"}, "--select"),
        ({"roi": "5"}, "--roi"),
        ({"normalize": "mean"}, "--normalize"),
        ({"nan": "keep"}, "--nan must be refuse or fill"),
        ({"dtype": "int64"}, "--dtype must be"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ConfigError, match=words):
        StackOptions(**options)
    assert StackOptions(axes="tzyx", roi="1:2,3:4").given() == ["--axes", "--roi"]
