import errno
import json
import signal

import keras
import numpy as np
import pytest
import skimage.data

from cbsn.cli import denoise as files
from cbsn.cli.denoise import adapt_and_denoise_files
from cbsn.errors import CbsnWarning, ConfigError, DataError, ModelError, TrainingError
from cbsn.images.image_files import Picture, read_picture, write_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.models.loading import load_model
from cbsn.noise.camera import simulate_camera
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.recipes import customised
from cbsn.training import adaptation as module
from cbsn.training import tuning
from cbsn.training.adaptation import adapt
from cbsn.training.tuning import Tuned

MINUTES = 5
"""More than the few steps take."""


@pytest.fixture
def noisy(tmp_path):
    """A folder of four noisy photographs."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    photograph = skimage.data.astronaut()
    for number in range(4):
        clean = photograph[100 * number : 100 * number + 64, 150:230]
        pixels = simulate_camera(np.ascontiguousarray(clean), seed=number)
        write_picture(folder / f"{number}.png", Picture(pixels, "PNG"))
    return folder


@pytest.fixture
def flat(tmp_path, random):
    """A folder of four noisy pictures, in which the noise can be seen."""
    folder = tmp_path / "flat"
    folder.mkdir()
    y, x = np.mgrid[0:256, 0:256] / 256
    for number in range(4):
        ramp = 100 + 40 * (x * np.cos(number) + y * np.sin(number))
        pixels = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
        pixels += random.normal(0, 20, pixels.shape)
        pixels = np.clip(np.rint(pixels), 0, 255).astype("uint8")
        write_picture(folder / f"{number}.png", Picture(pixels, "PNG"))
    return folder


@pytest.fixture
def save(tmp_path):
    """Saves a tiny model of fresh weights; returns its folder."""

    def write(recipe_name, **changes):
        keras.utils.set_random_seed(1)
        recipe = customised(recipe_name, filters=4, patch_size=20, **changes)
        network = recipe.build_network()
        # The output is off by so much that any step in the right direction makes it better.
        biases = [weight for weight in network.weights if weight.path.endswith("bias")]
        biases[-1].assign(biases[-1] + 0.5)
        save_model(tmp_path / recipe_name, recipe, network, {})
        return tmp_path / recipe_name

    return write


@pytest.fixture
def cbsn(save):
    return save("cbsn", num_modules=1)


@pytest.fixture
def teacher(save):
    """One that is traced faster."""
    return save("n2v-unet", depth=1)


@pytest.fixture
def student(save):
    return save("distill", depth=1)


def _facts(folder):
    return json.loads((folder / "recipe.json").read_text())["training"]


def _equal(folder, other):
    weights = [load_model(each)[1].get_weights() for each in (folder, other)]
    return all((a == b).all() for a, b in zip(*weights, strict=True))


def test_a_model_becomes_better_by_its_own_loss(tmp_path, noisy, cbsn, capsys):
    folder = tmp_path / "made" / "new"
    adapt([noisy], folder, MINUTES, cbsn, max_steps=20, learning_rate=1e-2)
    facts = _facts(folder)
    assert facts["adapted"] is True and facts["step"] == 20 and facts["minutes"] == MINUTES
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]
    recipe, _ = load_model(folder)
    assert recipe.objective_config["ramp_steps"] == 0 and recipe.patch_size == 20
    assert not _equal(folder, cbsn)
    assert [*folder.parent.iterdir()] == [folder]
    output = capsys.readouterr().out
    assert "4 patches of 64 px of 4 pictures, for 5 minutes: cbsn, in crops of 20 px" in output
    assert "1 patch held out" in output and "The adapted weights are taken." in output


@pytest.mark.parametrize(("name", "pictures"), [("teacher", "noisy"), ("student", "flat")])
def test_a_model_that_becomes_worse_stays(tmp_path, name, pictures, request, capsys):
    model, folder = request.getfixturevalue(name), tmp_path / "new"
    adapt(
        [request.getfixturevalue(pictures)], folder, MINUTES, model, max_steps=3, learning_rate=2e9
    )
    facts = _facts(folder)
    assert facts["adapted"] is False and facts["step"] == 3
    # So large a learning rate may leave no number.
    before, after = facts["held_out_loss_before"], facts["held_out_loss_after"]
    assert before > 0 and (after is None or after > before)
    assert _equal(folder, model) and load_model(folder)[0] == load_model(model)[0]
    assert "the weights stay as they were" in capsys.readouterr().out


def test_a_model_that_cannot_become_better_stays(tmp_path, noisy, teacher):
    """What is black all over is predicted without an error."""
    for path in noisy.iterdir():
        write_picture(path, Picture(np.zeros((30, 30, 3), np.uint8), "PNG"))
    recipe, network = load_model(teacher)
    network.set_weights([np.zeros_like(weights) for weights in network.get_weights()])
    save_model(teacher, recipe, network, {})
    adapt([noisy], tmp_path / "new", MINUTES, teacher, max_steps=1)
    facts = _facts(tmp_path / "new")
    assert facts["adapted"] is False and facts["held_out_loss_before"] == 0.0
    assert _equal(tmp_path / "new", teacher)


@pytest.mark.parametrize(("loss", "kept"), [(0.5, 0.5), (float("nan"), None), (float("inf"), None)])
def test_json_has_no_number_for_some_losses(loss, kept):
    assert module._or_none(loss) == kept


@pytest.mark.parametrize("after", [1.0, 1.5, float("nan"), float("inf")])
def test_no_better_is_what_is_not_less(after):
    assert not Tuned(None, None, 1, 1.0, after).is_better
    assert not Tuned(None, None, 1, float("nan"), after).is_better


def test_a_u_net_has_no_strides_and_a_seed_tells_all(tmp_path, noisy, teacher, capsys):
    results = [tmp_path / name for name in ("a", "b")]
    for folder in results:
        adapt([noisy], folder, MINUTES, teacher, max_steps=10, learning_rate=1e-2, seed=3)
    assert _facts(results[0])["adapted"] is True
    assert _equal(*results)
    assert "stride" not in capsys.readouterr().out


def test_strides_are_those_of_the_noise(tmp_path, flat, cbsn, capsys):
    (tmp_path / "empty").mkdir()
    adapt([flat], tmp_path / "empty", 1e-6, cbsn)
    output = capsys.readouterr().out
    assert "The noise is white" in output and "stride_b 1, stride_i 1" in output
    assert _facts(tmp_path / "empty")["step"] == 1  # which there is, however short the time


def test_strides_stay_where_no_noise_is_seen(tmp_path, noisy, save, capsys):
    gray = save("cbsn", num_modules=1, channels=1)
    for path in noisy.iterdir():
        pixels = read_picture(path).pixels[:16, :19, :1]  # as small as pictures may be
        write_picture(path, Picture(pixels.copy(), "PNG"))
    adapt([noisy], tmp_path / "new", MINUTES, gray, max_steps=2)
    output = capsys.readouterr().out
    assert "the model's strides stay" in output
    assert "in crops of 10 px, stride_b 5, stride_i 2" in output
    assert _facts(tmp_path / "new")["step"] == 2
    for path in noisy.iterdir():
        write_picture(path, Picture(read_picture(path).pixels[:15], "PNG"))
    with pytest.warns(CbsnWarning, match="19 × 15 px"), pytest.raises(DataError, match="16 px"):
        adapt([noisy], tmp_path / "new", MINUTES, gray)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_student_learns_from_its_own_pictures(tmp_path, flat, save, channels, capsys):
    student, folder = save("distill", depth=1, channels=channels), tmp_path / "new"
    adapt([flat], folder, MINUTES, student, max_steps=20, learning_rate=1e-2)
    assert load_model(folder)[0].name == "distill" and not _equal(folder, student)
    facts = _facts(folder)
    assert facts["adapted"] is True
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]
    assert "noise as measured in 4 places, 0.04 to 1.6 times as strong" in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 3])
def test_where_no_noise_is_seen_the_weights_stay(tmp_path, flat, save, channels, capsys):
    """Pictures of rounded ramps have flat parts, and next to no noise in them."""
    student, folder = save("distill", depth=1, channels=channels), tmp_path / "new"
    for path in flat.iterdir():
        ramp = np.linspace(50, 200, 256)[:, None, None] + np.linspace(0, 40, 256)[:, None]
        pixels = np.rint(np.broadcast_to(ramp, (256, 256, 3))).astype("uint8")
        write_picture(path, Picture(pixels, "PNG"))
    adapt([flat], folder, MINUTES, student)
    assert _equal(folder, student)
    facts = _facts(folder)
    assert facts["adapted"] is False and facts["step"] == 0
    assert "sees no noise in these pictures: the weights stay" in capsys.readouterr().out


class Weights:
    """A network of one weight, whose error is 1 at 0 and grows with it."""

    def __init__(self, value):
        self.value = value

    def get_weights(self):
        return [np.array(self.value)]

    def set_weights(self, weights):
        self.value = float(weights[0])


@pytest.mark.parametrize(
    ("slope", "harm", "share"),
    [(0.01, 0, 1), (0.02, 0, 0.5), (0.02, 0.02, 1), (0.09, 0, 0.125), (0.2, 0, 0), (-1, 0, 1)],
)
def test_as_much_is_taken_as_does_no_harm(slope, harm, share):
    """0.05 dB are a growth by 1.16 %."""
    network = Weights(1.0)

    def measure():
        return tuning._Measured(1 - network.value, 1 + slope * network.value)

    first = tuning._Measured(1.0, 1.0)
    after, taken = tuning._without_harm(network, [np.array(0.0)], first, measure, harm)
    assert taken == share
    if share:
        assert network.value == share and after == measure()
    assert Tuned(None, None, 1, 1.0, after.loss, taken).is_better == (share > 0)


@pytest.mark.slow
def test_clean_photographs_fare_no_worse(tmp_path, photographs):
    """Weights that are adapted to pictures without noise do them no harm."""
    folder = tmp_path / "clean"
    folder.mkdir()
    crops = [photograph[:192, :192] for photograph in photographs]
    for number, pixels in enumerate(crops):
        write_picture(folder / f"{number}.png", Picture(pixels.copy(), "PNG"))
    adapt([folder], tmp_path / "new", MINUTES, "photo", max_steps=8, precision="float32")
    before, after = (
        np.mean([np.square(denoise(crop / 255.0) - crop / 255.0).mean() for crop in crops])
        for denoise in (
            Denoiser.load(model, DenoiseOptions(precision="float32"))
            for model in ("photo", tmp_path / "new")
        )
    )
    assert after <= before * 10 ** (0.1 / 10)


def test_ctrl_c_writes_nothing(tmp_path, noisy, teacher, monkeypatch):
    class Interrupted(tuning.tqdm):
        def update(self, n=1):
            signal.raise_signal(signal.SIGINT)

    save_model(tmp_path / "new", *load_model(teacher), {"adapted": True})
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr(tuning, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt([noisy], tmp_path / "new", MINUTES, teacher)
    assert before == {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}


def test_what_cannot_be_adapted(tmp_path, noisy, teacher, save):
    for minutes in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(ConfigError, match="--adapt takes minutes"):
            adapt([noisy], tmp_path / "new", minutes, teacher)
    with pytest.raises(ConfigError, match="'n2n-resunet' cannot learn from noisy pictures alone"):
        adapt([noisy], tmp_path / "new", 1, save("n2n-resunet", depth=1))
    with pytest.raises(DataError):
        adapt([tmp_path / "nowhere"], tmp_path / "new", 1, teacher)
    with pytest.raises(ModelError):
        adapt([noisy], tmp_path / "new", 1, tmp_path / "nowhere")


def test_only_an_earlier_result_is_replaced(tmp_path, noisy, teacher):
    files = sorted(tmp_path.rglob("*"))
    for folder in (noisy, teacher, noisy / "0.png"):
        with pytest.raises(ConfigError, match="something else is there"):
            adapt([noisy], folder, 1, teacher)
    with pytest.raises(ConfigError, match=r"Nothing can be written to .*0\.png: Not a directory"):
        adapt([noisy], noisy / "0.png" / "new", 1, teacher)
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
def test_pictures_are_denoised_with_the_result(tmp_path, noisy, teacher, capsys):
    (noisy / "broken.png").write_bytes(b"\x89PNG\r\n")
    status = adapt_and_denoise_files(
        teacher,
        [noisy],
        tmp_path / "out",
        minutes=0.05,
        adapt_save=tmp_path / "kept",
        engine="tensorflow",
    )
    assert status == 1
    assert len([*(tmp_path / "out").iterdir()]) == 4
    output, errors = capsys.readouterr()
    assert "4 of 5 pictures denoised" in output and "broken.png" in errors
    denoise = Denoiser.load(tmp_path / "kept", DenoiseOptions(engine="tensorflow"))
    expected = denoise(read_picture(noisy / "0.png").pixels)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "0.png").pixels, expected)


def test_mistakes_are_told_before_anything_is_done(tmp_path, noisy, teacher, monkeypatch):
    monkeypatch.setattr(files, "adapted", lambda *_, **__: pytest.fail("adapted"))
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for mistake in (
        {"minutes": 1e300},
        {"seed": -1},
        {"seed": 2**32},
        {"white": float("nan")},
        {"save_path": noisy},
        {"save_path": tmp_path / "file"},
        {"save_path": tmp_path / ("x" * 256)},
        {"adapt_save": tmp_path / "file" / "deeper" / "kept"},
        {"adapt_save": tmp_path / ("x" * 256)},
    ):
        options = {"save_path": tmp_path / "out", "minutes": 10, **mistake}
        with pytest.raises(ConfigError):
            adapt_and_denoise_files(teacher, [noisy], **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tile_that_is_none_is_told_before_the_minutes(tmp_path, noisy, teacher, monkeypatch):
    monkeypatch.setattr(files, "adapted", lambda *_, **__: pytest.fail("adapted"))
    with pytest.raises(ConfigError, match="tile is auto"):
        adapt_and_denoise_files(teacher, [noisy], tmp_path / "out", minutes=10, tile="x")


def test_a_full_disk_loses_the_model_but_no_picture(tmp_path, noisy, teacher, monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_model", fail)
    kept = tmp_path / "kept"
    with (
        pytest.warns(CbsnWarning, match="No space left.* The pictures are denoised first"),
        pytest.raises(TrainingError, match=r"cannot be kept in .*kept: No space left on device"),
    ):
        adapt_and_denoise_files(
            teacher, [noisy], tmp_path / "out", minutes=0.01, adapt_save=kept, engine="tensorflow"
        )
    assert len([*(tmp_path / "out").iterdir()]) == 4
    assert "4 of 4 pictures denoised" in capsys.readouterr().out
    assert not kept.exists()


def test_crops_are_as_large_as_the_strides_ask_for(tmp_path, noisy, save, capsys):
    """Even where the model was trained on smaller ones."""
    model = save("apbsn", num_modules=1, stride_b=4)
    assert load_model(model)[0].patch_size == 20
    far = module._fit(load_model(model)[0], {"stride_b": 12}, 64)
    assert (far.patch_size, far.objective_config["stride_b"]) == (12, 12)
    wide = module._fit(load_model(model)[0], {"stride_b": 24}, 64)
    assert wide.patch_size == 24
    with pytest.raises(DataError, match="must have 24 px or more"):
        module._fit(load_model(model)[0], {"stride_b": 24}, 23)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (15, 300)])
def test_small_pictures_are_refused_in_words(tmp_path, student, size):
    write_picture(tmp_path / "line.png", Picture(np.full((*size, 3), 9, np.uint8), "PNG"))
    with (
        pytest.warns(CbsnWarning, match="too few to learn from"),
        pytest.raises(DataError, match="16 px or more in height and width: denoise without"),
    ):
        adapt([tmp_path / "line.png"], tmp_path / "new", MINUTES, student)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cbsn", {"num_modules": 1}),
        ("apbsn", {"num_modules": 1}),
        ("ssbsn", {"num_modules": 1, "num_attention": 1}),
        ("n2v-unet", {"depth": 3}),
        ("dil-unet", {"depth": 3}),
        ("distill", {"depth": 3}),
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (17, 400), (19, 19), (31, 33), (64, 63)])
def test_all_other_sizes_will_do(tmp_path, random, save, name, changes, size, monkeypatch):
    """Also to a student, if there were enough pictures to see the noise in."""
    curves = [np.array([[128.0, 10.0]])] * 3
    models = [CorrelatedNoise(curves, np.eye(3)[:, :, None, None])]
    monkeypatch.setattr(module, "_measured", lambda patches, channels: models)
    pixels = random.integers(0, 256, (*size, 3)).astype("uint8")
    write_picture(tmp_path / "a.png", Picture(pixels, "PNG"))
    adapt([tmp_path / "a.png"], tmp_path / "new", MINUTES, save(name, **changes), max_steps=1)
    assert _facts(tmp_path / "new")["step"] == 1
