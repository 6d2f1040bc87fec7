"""The network, the objective and the recipe of docs/extending.md keep what the package demands."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import NETWORKS
from cbsn.objectives import OBJECTIVES
from cbsn.recipes import RECIPES
from tests.docs.pages import ROOT, blocks_of
from tests.networks import test_conformance as conformance

PAGE = ROOT / "docs" / "extending.md"
CODE = [block.text for block in blocks_of(PAGE) if block.language == "python"]


def _blocks(*names):
    """Returns the blocks that define what has these names, as one program."""
    return "\n\n".join(next(each for each in CODE if name in each) for name in names)


METHODS = _blocks("class PlainNetwork", "class RobustNoise2Void", "recipe = Recipe(")


@pytest.fixture(scope="module")
def names():
    """What the page defines; it is registered for this module's tests only."""
    registries = (NETWORKS, OBJECTIVES, RECIPES)
    before = [dict(each) for each in registries]
    found = {"__name__": "methods"}
    exec(METHODS, found)
    yield found
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture
def network(names):
    keras.utils.set_random_seed(1)
    network = names["PlainNetwork"](filters=6, num_modules=2)
    conformance._randomise_biases(network)
    return network


def test_the_network_is_blind_by_gradient(network, random, monkeypatch):
    with tf.device("CPU:0"):
        conformance.test_blind_by_gradient(network, random, (9, 7), monkeypatch)
        conformance.test_receptive_field_radius_is_exact(network)
        conformance.test_what_is_not_local_is_seen_from_everywhere(network)


@pytest.mark.parametrize(
    "check",
    [
        conformance.test_config_round_trip,
        conformance.test_unknown_sizes_in_the_graph_give_the_same,
    ],
    ids=lambda check: check.__name__,
)
def test_the_network_conforms(network, random, check):
    check(network, random)


def test_the_network_says_what_a_call_does(network):
    conformance.test_blindness_says_what_a_call_does(network)


@pytest.mark.parametrize("multiples", [(1, 1), (2, 5)])
def test_its_tiles_are_the_inside_of_pictures(network, random, multiples):
    conformance.test_valid_padding_is_the_inside_of_same_padding(network, random, multiples)


@pytest.mark.parametrize("size", [(1, 1), (13, 12)])
def test_the_network_takes_any_size(network, size):
    assert network(np.zeros((2, *size, 3), "float32")).shape == (2, *size, 3)


def test_the_network_computes_in_half_precision(names, network, random):
    make = functools.partial(names["PlainNetwork"], filters=6, num_modules=2)
    conformance.test_half_precision_computes_in_it_and_returns_float32(
        network, make, random, "mixed_bfloat16"
    )


def test_the_objective_is_its_formula(names, random):
    x = random.normal(size=(2, 8, 8, 3)).astype("float32")
    prediction = random.normal(size=x.shape).astype("float32")
    mask = (random.random((2, 8, 8, 1)) < 0.3).astype("float32")

    class Network:
        def blind_pass(self, noisy, random):
            return prediction, mask

    terms = names["RobustNoise2Void"](epsilon=0.5)(Network(), x, 0, None)
    each = np.sqrt((prediction - x) ** 2 + 0.25)
    expected = each[mask[..., 0] == 1].mean()
    np.testing.assert_allclose(terms["total"], expected, rtol=1e-5)
    assert terms.keys() == {"total", "blind"}


def test_the_recipe_trains_its_network(names, random):
    """A step along the gradient lowers the loss of the same batch with the same masks."""
    recipe = RECIPES["plain"]
    network = recipe.build_network()
    objective, normalization = recipe.build_objective(), recipe.build_normalization()
    batch = normalization.batch(tf.constant(random.random((2, 32, 32, 3)), "float32"))

    def loss():
        return objective(network, batch, 0, conformance.Draws(0))["total"]

    with tf.GradientTape() as tape:
        before = loss()
    gradients = tape.gradient(before, network.trainable_weights)
    norm = tf.linalg.global_norm(gradients)
    for weight, gradient in zip(network.trainable_weights, gradients, strict=True):
        weight.assign_sub(1e-3 / norm * gradient)
    assert loss() < before


@pytest.mark.slow
def test_the_command_line_knows_the_methods(tmp_path, photographs):
    (tmp_path / "methods.py").write_text(METHODS)
    (tmp_path / "mine.py").write_text(_blocks("import methods"))
    (tmp_path / "photos").mkdir()
    keras.utils.save_img(tmp_path / "photos" / "a.png", photographs[0][:96, :96])
    for flags in (
        ["train", "photos", "--name", "x", "--recipe", "plain", "--steps", "2", "--channels", "4"],
        ["denoise", "photos", "--model", "checkpoints/x"],
    ):
        ended = subprocess.run(
            [sys.executable, "mine.py", *flags],
            cwd=tmp_path,
            env={"PATH": "", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "denoised" / "a.png").exists()
