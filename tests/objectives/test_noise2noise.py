import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.objectives import Noise2Noise, noise2noise
from cbsn.objectives import noise2noise as perceptual
from cbsn.objectives.noise2noise import LAYERS, PerceptualLoss


@pytest.fixture(scope="module")
def vgg():
    """VGG-16 of random weights."""
    keras.utils.set_random_seed(0)
    return keras.applications.VGG16(weights=None, include_top=False)


@pytest.fixture(scope="module")
def weights(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg.weights.h5"
    vgg.save_weights(path)
    return path


@pytest.fixture(scope="module")
def loss(weights):
    return PerceptualLoss(weights)


@pytest.fixture
def pictures(random):
    return random.random((2, 2, 32, 32, 3), "float32")


def test_is_the_mean_difference_of_the_features(vgg, loss, pictures):
    expected = []
    for name in LAYERS:
        features = keras.Model(vgg.input, vgg.get_layer(name).output)
        a, b = (
            features(keras.applications.vgg16.preprocess_input(255 * x)).numpy() for x in pictures
        )
        expected.append(np.abs(a - b).mean() / 255)
    found = loss(*pictures)
    assert found.dtype == "float32"
    assert found.shape == ()
    assert found.numpy() == pytest.approx(np.mean(expected), rel=1e-5)


def test_is_zero_for_equals_only(loss, pictures):
    a, b = pictures
    assert loss(a, a).numpy() == 0
    assert loss(a, b).numpy() > 0


def test_gray_is_three_equal_channels(loss, pictures):
    gray = pictures[..., :1]
    repeated = np.repeat(gray, 3, axis=-1)
    assert loss(*gray).numpy() == pytest.approx(loss(*repeated).numpy(), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_flow_to_the_picture(loss, pictures, channels):
    a, b = (tf.constant(x[..., :channels]) for x in pictures)

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(a)
            value = loss(a, b)
        return tape.gradient(value, a)

    found = gradient().numpy()
    assert found.shape == a.shape
    assert np.isfinite(found).all()
    assert np.count_nonzero(found) > 0.9 * found.size


def test_reads_the_format_of_the_published_file(vgg, loss, pictures, tmp_path):
    vgg.save(tmp_path / "vgg.h5")
    assert PerceptualLoss(tmp_path / "vgg.h5")(*pictures) == loss(*pictures)


@pytest.mark.filterwarnings("ignore")  # Keras warns of much before it refuses
def test_refuses_files(tmp_path):
    missing = tmp_path / "missing.h5"
    with pytest.raises(ConfigError, match=r"missing\.h5.*notop\.h5 from https://"):
        PerceptualLoss(missing)
    for name in ("broken.h5", "broken.weights.h5", "broken.npz"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
            PerceptualLoss(tmp_path / name)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for name in ("other.h5", "other.weights.h5"):
        save = other.save_weights if name == "other.weights.h5" else other.save
        save(tmp_path / name)
        with pytest.raises(ConfigError, match=r"other\..*--perceptual_weights"):
            PerceptualLoss(tmp_path / name)


def test_no_network(tmp_path, monkeypatch):
    get_file = keras.utils.get_file

    def elsewhere(name, origin, **kwargs):
        assert origin == perceptual.URL
        return get_file(name, "file:///nowhere/vgg.h5", cache_dir=tmp_path, **kwargs)

    monkeypatch.setattr(keras.utils, "get_file", elsewhere)
    with pytest.raises(ConfigError, match=r"https://.*--perceptual_weights FILE.*--lmbda 0"):
        PerceptualLoss()


def test_the_default_is_what_keras_fetches(weights, monkeypatch, loss, pictures):
    monkeypatch.setattr(keras.utils, "get_file", lambda *args, **kwargs: str(weights))
    assert PerceptualLoss()(*pictures) == loss(*pictures)
    source = keras.applications.VGG16.__globals__["WEIGHTS_PATH_NO_TOP"]
    assert source == perceptual.URL


def halve(x, blind):
    assert not blind
    return x / 2


def test_the_first_shot_is_turned_into_the_second(random):
    first, second = random.normal(size=(2, 2, 4, 4, 3)).astype("float32")
    shots = tf.constant(np.concatenate([first, second], axis=-1))
    objective = Noise2Noise()
    objective.prepare()  # without a perceptual term there is nothing to fetch
    terms = objective(halve, shots, 0, None)
    assert set(terms) == {"total", *objective.TERMS} == {"total", "pixel"}
    expected = np.mean(np.abs(first / 2 - second))
    assert terms["total"].numpy() == terms["pixel"].numpy() == pytest.approx(expected, rel=1e-6)


def test_the_perceptual_term_is_added_with_its_weight(random, monkeypatch):
    given = []

    class Perceptual:
        def __init__(self, weights):
            given.append(weights)

        def __call__(self, a, b):
            return tf.reduce_max(tf.abs(a - b))

    monkeypatch.setattr(noise2noise, "PerceptualLoss", Perceptual)
    objective = Noise2Noise(lmbda=0.5)
    objective.perceptual_weights = "some file"
    objective.prepare()
    assert given == ["some file"]
    shots = random.normal(size=(1, 4, 4, 2)).astype("float32")
    terms = objective(halve, tf.constant(shots), 0, None)
    difference = np.abs(shots[..., :1] / 2 - shots[..., 1:])
    assert set(terms) == {"total", *objective.TERMS}
    assert terms["perceptual"].numpy() == pytest.approx(difference.max())
    assert terms["total"].numpy() == pytest.approx(difference.mean() + 0.5 * difference.max())


@pytest.mark.parametrize("lmbda", [-1.0, float("inf")])
def test_out_of_range(lmbda):
    with pytest.raises(ConfigError, match=f"lmbda={lmbda}"):
        Noise2Noise(lmbda)
