import errno
import json

import keras
import numpy as np
import pytest
import skimage.data

from cbsn.errors import ConfigError, DataError, TrainingError
from cbsn.images.image_files import Picture, write_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.loading import load_model
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.noise.synthetic import simulate_camera
from cbsn.recipes import customised
from cbsn.training import adaptation as module
from cbsn.training.adaptation import Adapted, adapt, check_adaptation, save_adapted
from cbsn.training.distillation import with_low_frequencies
from cbsn.training.tuning import Tuned

MINUTES = 5
"""More than the few steps take."""


def _save(folder, pictures):
    folder.mkdir()
    for number, pixels in enumerate(pictures):
        write_picture(folder / f"{number}.png", Picture(np.ascontiguousarray(pixels), "PNG"))
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A folder of four noisy photographs."""
    photograph = skimage.data.astronaut()
    crops = [photograph[100 * number : 100 * number + 64, 150:230] for number in range(4)]
    pictures = [simulate_camera(crop.copy(), seed=number) for number, crop in enumerate(crops)]
    return _save(tmp_path_factory.mktemp("pictures") / "noisy", pictures)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A folder of four noisy pictures, in which the noise can be seen."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:256, 0:256] / 256
    pictures = []
    for number in range(4):
        ramp = 100 + 40 * (x * np.cos(number) + y * np.sin(number))
        pixels = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
        pixels += random.normal(0, 20, pixels.shape)
        pictures.append(np.clip(np.rint(pixels), 0, 255).astype("uint8"))
    return _save(tmp_path_factory.mktemp("pictures") / "flat", pictures)


@pytest.mark.slow
def test_it_says_how_much_time_has_passed(noisy):
    shares = []
    adapt([noisy], _model("cbsn"), MINUTES, max_steps=3, on_share=shares.append)
    assert len(shares) == 3 and shares == sorted(shares)
    assert all(0 < share <= 1 for share in shares)


@pytest.mark.slow
def test_it_can_be_ended_at_any_step(noisy):
    class EndedError(Exception):
        pass

    def end(share):
        raise EndedError

    model = _model("cbsn")
    before = model.network.get_weights()
    with pytest.raises(EndedError):
        adapt([noisy], model, MINUTES, on_share=end)
    assert all(map(np.array_equal, before, model.network.get_weights()))


def _model(recipe_name, **changes):
    """A tiny model of fresh weights."""
    keras.utils.set_random_seed(1)
    recipe = customised(recipe_name, filters=4, patch_size=20, **changes)
    network = recipe.build_network()
    # The output is off by so much that any step in the right direction makes it better.
    biases = [weight for weight in network.weights if weight.path.endswith("bias")]
    biases[-1].assign(biases[-1] + 0.5)
    return Denoiser(recipe, network, DenoiseOptions(engine="tensorflow"))


@pytest.fixture(scope="module")
def blind():
    return _model("n2v-unet", depth=1)


@pytest.fixture
def not_tuned(monkeypatch):
    """Has nothing tuned, and a result told all the same; returns what it was to be tuned by."""
    given = []

    def begin(losses=(0.5, 0.25), share=1):
        def tune(recipe, network, patches, *_):
            given[:] = recipe, patches
            return Tuned("new", 7, *losses, share)

        monkeypatch.setattr(module, "tune", tune)
        return given

    return begin


def _equal(network, other):
    weights = zip(network.get_weights(), other.get_weights(), strict=True)
    return all((a == b).all() for a, b in weights)


def test_a_model_becomes_better_by_its_own_loss(tmp_path, noisy, capsys):
    dil = _model("dil-unet", depth=1)
    before = dil.sha256()
    adapted = adapt([noisy], dil, MINUTES, max_steps=8, learning_rate=1e-2)
    facts = adapted.facts
    assert facts["adapted"] is True and facts["step"] == 8 and facts["minutes"] == MINUTES
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]
    assert adapted.recipe.objective_config["ramp_steps"] == 0
    assert (adapted.recipe.patch_size, adapted.recipe.max_steps) == (20, 8)
    assert not _equal(adapted.network, dil.network)
    assert facts["from"] == before == dil.sha256()
    output = capsys.readouterr().out
    assert "4 patches of 64 px of 4 pictures, for 5 minutes: dil-unet, in crops of 20 px" in output
    assert "1 patch held out" in output and "The adapted weights are used." in output

    folder = tmp_path / "made" / "new"
    save_adapted(adapted, folder)
    recipe, network = load_model(folder)
    assert recipe == adapted.recipe and _equal(network, adapted.network)
    assert json.loads((folder / "recipe.json").read_text())["training"] == facts
    assert [*folder.parent.iterdir()] == [folder]
    check_adaptation(1, 0, folder)  # which may be replaced


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pictures"), [("n2v-unet", "noisy"), ("distill", "flat")])
def test_a_model_that_becomes_worse_stays(name, pictures, request, capsys):
    model, folder = _model(name, depth=1), request.getfixturevalue(pictures)
    recipe, network, facts = adapt([folder], model, MINUTES, max_steps=2, learning_rate=2e9)
    assert facts["adapted"] is False and facts["step"] == 2
    # So large a learning rate may leave no number.
    before, after = facts["held_out_loss_before"], facts["held_out_loss_after"]
    assert before > 0 and (after is None or after > before)
    assert (recipe, network) == (model.recipe, model.network)
    assert "the weights stay as they were" in capsys.readouterr().out


def test_a_model_that_cannot_become_better_stays(tmp_path, blind):
    """What is black all over is predicted without an error."""
    black = _save(tmp_path / "black", [np.zeros((20, 20, 3), np.uint8)])
    network = blind.recipe.build_network()
    network.set_weights([np.zeros_like(weights) for weights in network.get_weights()])
    adapted = adapt([black], Denoiser(blind.recipe, network), 1e-6)
    assert adapted.facts["adapted"] is False and adapted.facts["held_out_loss_before"] == 0.0
    assert adapted.facts["step"] == 1  # which there is, however short the time
    assert adapted.network is network


@pytest.mark.parametrize(
    ("losses", "share", "verdict"),
    [
        ((0.5, 0.25), 1, "0.50000; after 7 steps 0.25000. The adapted weights are used."),
        ((0.5, 0.25), 0.7, "Only 0.7 of the change in the weights is used"),
        ((0.5, 0.5), 1, "This is no better: the weights stay"),
        ((0.5, float("nan")), 1, "This is no better: the weights stay"),
        ((0.5, 0.25), 0, "Pictures without noise would become worse: the weights stay"),
    ],
)
def test_the_verdict_is_said_and_kept(noisy, blind, losses, share, verdict, not_tuned, capsys):
    not_tuned(losses, share)
    adapted = adapt([noisy], blind, MINUTES)
    output = capsys.readouterr().out
    assert verdict in output and "stride" not in output  # U-Nets have none
    is_better = "used" in verdict
    assert adapted.network == ("new" if is_better else blind.network)
    assert adapted.facts["adapted"] is is_better and adapted.facts["share_of_change"] == share
    # JSON has no number for what is not finite.
    json.dumps(adapted.facts, allow_nan=False)


@pytest.mark.slow
def test_a_seed_tells_all(noisy, blind):
    options = {"max_steps": 3, "learning_rate": 1e-2}
    first, same, other = (
        adapt([noisy], blind, MINUTES, seed=seed, **options) for seed in (3, 3, 4)
    )
    assert first.facts["adapted"] is True
    assert _equal(first.network, same.network) and not _equal(first.network, other.network)


def test_strides_are_those_of_the_noise(flat, not_tuned, capsys):
    given = not_tuned()
    adapt([flat], _model("cbsn", num_modules=1), MINUTES)
    output = capsys.readouterr().out
    assert "The noise is white" in output and "stride_b 1, stride_i 1" in output
    assert [given[0].objective_config[key] for key in ("stride_b", "stride_i")] == [1, 1]


@pytest.mark.parametrize("name", ["tmbsn", "cbsn-hole"])
def test_the_hole_is_that_of_the_noise(flat, not_tuned, capsys, name):
    given = not_tuned()
    adapted = adapt([flat], _model(name, depth=1), MINUTES)
    settings = "crops of 20 px" + (", stride_b 1, stride_i 2" if name == "cbsn-hole" else "")
    assert f"{settings}, hole 1\n" in capsys.readouterr().out
    assert adapted.recipe.network_config["hole"] == 1
    assert given[0].network_config["denoise_hole"] == (1 if name == "tmbsn" else 0)
    assert given[0].objective_config.get("stride_b", 1) == 1


@pytest.mark.slow
def test_another_hole_takes_the_same_weights(flat):
    model = _model("tmbsn", depth=1)
    adapted = adapt([flat], model, MINUTES, max_steps=3, learning_rate=1e-2)
    assert adapted.facts["adapted"]
    assert (adapted.network.hole, adapted.network.denoise_hole) == (1, 1)
    assert not _equal(adapted.network, model.network)
    assert (model.network.hole, model.network.denoise_hole) == (9, 3)


def test_strides_stay_where_no_noise_is_seen(tmp_path, random, not_tuned, capsys):
    given = not_tuned()
    gray = _model("cbsn", num_modules=1, channels=1)
    small = random.integers(0, 256, (2, 16, 19, 1)).astype("uint8")  # as small as they may be
    adapt([_save(tmp_path / "small", small)], gray, MINUTES)
    output = capsys.readouterr().out
    assert "No picture has 32 × 32 pixels" in output
    assert "the model's strides are kept" in output
    assert "in crops of 10 px, stride_b 5, stride_i 2" in output
    config = given[0].objective_config
    assert (given[0].patch_size, config["stride_b"], config["stride_i"]) == (10, 5, 2)


def test_a_student_is_given_its_own_pictures(flat, not_tuned, capsys):
    given = not_tuned()
    student = _model("distill", depth=1)
    adapt([flat], student, MINUTES)
    assert "noise as measured in 4 places, 0.04 to 1.6 times as strong" in capsys.readouterr().out
    patches = given[1]
    assert patches.shots == 2 and 1 <= len(patches) <= 4
    noisy, made = np.split(patches[0], 2, axis=-1)
    denoise = Denoiser(student.recipe, student.network, DenoiseOptions(self_ensemble=True))
    unit = noisy[None] / np.float32(255)
    expected = with_low_frequencies(unit, denoise(unit[0])[None])[0]
    np.testing.assert_allclose(made, 255 * expected, atol=0.501)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_a_student_learns_from_its_own_pictures(flat, channels):
    student = _model("distill", depth=1, channels=channels)
    adapted = adapt([flat], student, MINUTES, max_steps=8, learning_rate=1e-2)
    assert adapted.recipe.name == "distill" and not _equal(adapted.network, student.network)
    facts = adapted.facts
    assert facts["adapted"] is True
    assert facts["held_out_loss_after"] < facts["held_out_loss_before"]


@pytest.mark.parametrize("channels", [1, 3])
def test_where_no_noise_is_seen_the_weights_stay(tmp_path, channels, capsys):
    """Pictures of rounded ramps have flat parts, and next to no noise in them."""
    student = _model("distill", depth=1, channels=channels)
    ramp = np.linspace(50, 200, 256)[:, None, None] + np.linspace(0, 40, 256)[:, None]
    pixels = np.rint(np.broadcast_to(ramp, (256, 256, 3))).astype("uint8")
    adapted = adapt([_save(tmp_path / "ramps", [pixels] * 2)], student, MINUTES)
    assert adapted.network is student.network
    assert adapted.facts["adapted"] is False and adapted.facts["step"] == 0
    output = capsys.readouterr().out
    assert "No noise was measured in these pictures: the weights stay as they were." in output
    assert "450 without noise" in output


def test_noise_that_cannot_be_measured_is_not_called_none(tmp_path, random, capsys):
    student = _model("distill", depth=1)
    squares = random.integers(20, 230, (2, 8, 8, 1)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = (squares + random.normal(0, 5, (2, 64, 64, 3))).astype("uint8")  # nowhere flat
    adapted = adapt([_save(tmp_path / "busy", pixels)], student, MINUTES, max_steps=1)
    assert adapted.network is student.network
    output = capsys.readouterr().out
    assert "the weights stay as they were. There are too few flat blocks" in output


def test_noise_weaker_than_that_of_rounding_is_none(tmp_path, random, monkeypatch, capsys):
    curves = [np.array([[128.0, 0.3]])] * 3
    models = [CorrelatedNoise(curves, np.eye(3)[:, :, None, None])]
    monkeypatch.setattr(module, "measure_noise", lambda patches: models)
    student = _model("distill", depth=1)
    pixels = random.integers(0, 256, (64, 64, 3)).astype("uint8")
    adapted = adapt([_save(tmp_path / "one", [pixels])], student, MINUTES, max_steps=1)
    assert adapted.network is student.network
    assert "It is nowhere stronger than 0.5 of 255 levels." in capsys.readouterr().out


@pytest.mark.slow
def test_clean_photographs_fare_no_worse(tmp_path, photographs):
    """Weights that are adapted to pictures without noise do them no harm."""
    crops = [photograph[:192, :192] for photograph in photographs]
    photo = Denoiser.load("photo", DenoiseOptions(precision="float32"))
    adapted = adapt([_save(tmp_path / "clean", crops)], photo, MINUTES, max_steps=8)
    before, after = (
        np.mean([np.square(denoise(crop / 255.0) - crop / 255.0).mean() for crop in crops])
        for denoise in (photo, Denoiser(adapted.recipe, adapted.network))
    )
    assert after <= before * 10 ** (0.1 / 10)


def test_what_cannot_be_adapted(tmp_path, noisy, blind):
    for minutes in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(ConfigError, match="minutes of adaptation must be"):
            adapt([noisy], blind, minutes)
    for seed in (-1, 2**32):
        with pytest.raises(ConfigError, match="--seed"):
            adapt([noisy], blind, 1, seed=seed)
    with pytest.raises(ConfigError, match="'n2n-resunet' cannot learn from noisy pictures alone"):
        adapt([noisy], _model("n2n-resunet", depth=1), 1)
    with pytest.raises(DataError):
        adapt([tmp_path / "nowhere"], blind, 1)


def test_only_an_earlier_result_is_replaced(tmp_path, noisy, model):
    files = sorted(tmp_path.rglob("*"))
    for folder in (noisy, tmp_path / model, noisy / "0.png"):
        with pytest.raises(ConfigError, match="something else is there"):
            check_adaptation(1, 0, folder)
    with pytest.raises(ConfigError, match=r"0\.png cannot be written to: Not a directory"):
        check_adaptation(1, 0, noisy / "0.png" / "new")
    (tmp_path / "empty").mkdir()
    check_adaptation(1, 0, tmp_path / "empty")
    (tmp_path / "empty").rmdir()
    assert sorted(tmp_path.rglob("*")) == files


def test_a_full_disk_is_told(tmp_path, blind, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_model", fail)
    with pytest.raises(TrainingError, match=r"cannot be saved in .*kept: No space left on device"):
        save_adapted(Adapted(blind.recipe, blind.network, {}), tmp_path / "kept")


def test_crops_are_as_large_as_the_strides_ask_for():
    """Even where the model was trained on smaller ones."""
    recipe = customised("apbsn", filters=4, num_modules=1, patch_size=20, stride_b=4)
    far = module._fit(recipe, {"stride_b": 12}, 64, None)
    assert (far.patch_size, far.objective_config["stride_b"]) == (12, 12)
    assert module._fit(recipe, {"stride_b": 24}, 64, None).patch_size == 24
    recipe = customised("tmbsn", filters=4, depth=1, patch_size=20)
    far = module._fit(recipe, {"hole": 23, "denoise_hole": 3}, 64, None)
    assert (far.patch_size, far.network_config["hole"]) == (24, 23)
    with pytest.raises(DataError, match="must have 24 px or more"):
        module._fit(recipe, {"hole": 23, "denoise_hole": 3}, 23, None)
    recipe = customised("apbsn", filters=4, num_modules=1, patch_size=20)
    with pytest.raises(DataError, match="must have 24 px or more"):
        module._fit(recipe, {"stride_b": 24}, 23, None)


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
def test_all_other_sizes_will_do(tmp_path, random, name, changes, size, monkeypatch):
    """Also to a student, if there were enough pictures to see the noise in."""
    curves = [np.array([[128.0, 10.0]])] * 3
    models = [CorrelatedNoise(curves, np.eye(3)[:, :, None, None])]
    monkeypatch.setattr(module, "_measured", lambda patches, channels: models)
    pixels = random.integers(0, 256, (*size, 3)).astype("uint8")
    adapted = adapt(
        [_save(tmp_path / "one", [pixels])], _model(name, **changes), MINUTES, max_steps=1
    )
    assert adapted.facts["step"] == 1
