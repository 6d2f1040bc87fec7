import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import uniform_filter

from cbsn.data.pairs import PicturePairs
from cbsn.data.records import RecordWriter
from cbsn.errors import CbsnError, ConfigError, TrainingStopped
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import Noise
from cbsn.training.distillation import with_low_frequencies
from cbsn.training.distribution import Workers
from cbsn.training.loop import validate
from cbsn.training.options import RunOptions
from cbsn.training.run import resolve, train

TINY = {"filters": 4, "num_modules": 1, "patch_size": 20, "batch_size": 2, "max_steps": 2}
UNET = {"filters": 4, "depth": 1, "patch_size": 20, "batch_size": 2, "max_steps": 2}
"""Settings of `n2v-unet`, for what is the same with any network: traced in half the time."""

OWN_NOISE = {"filters": 4, "depth": 1, "patch_size": 32, "batch_size": 4, "max_steps": 3}


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


def _facts(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def no_steps(monkeypatch):
    """Has a run come to its end without a step."""
    return lambda: monkeypatch.setattr("cbsn.training.run.TrainingLoop.run", lambda self: False)


@pytest.fixture
def settings(options):
    """Resolves the settings of a run in this process alone."""

    def begin(recipe, changes, **given):
        run = RunOptions(name="a", **{**options, **given})
        return resolve(recipe, changes, run, Workers(tf.distribute.get_strategy()))

    return begin


@pytest.mark.parametrize(("recipe", "epochs"), [("n2v-unet", 2), ("apbsn", 1), ("apbsn", 0)])
def test_epochs_are_passes_over_the_patches(settings, recipe, epochs):
    """Some recipes are counted in them; 5 patches in batches of 2 are 3 steps."""
    size = UNET if recipe == "n2v-unet" else TINY
    changes = {key: value for key, value in size.items() if key != "max_steps"}
    resolved = settings(recipe, changes, epochs=epochs).recipe
    steps = 3 * (epochs or 20)
    assert resolved.max_steps == steps
    if recipe == "apbsn":
        # 8 of 20 epochs, rounded up.
        assert resolved.lr_decay_steps == -(-steps * 8 // 20)
        assert resolved.denoise_stride == 2


def test_a_bootstrap_may_be_longer_than_the_recipe_if_there_are_epochs_enough(settings):
    sizes = {key: value for key, value in UNET.items() if key != "max_steps"}
    changes = {**sizes, "bootstrap_steps": 150_000}
    assert settings("pn2v-unet", changes, epochs=60_000).recipe.max_steps == 180_000
    with pytest.raises(ConfigError, match="--bootstrap_steps 120000 or less"):
        settings("pn2v-unet", changes, epochs=40_000)


@pytest.mark.parametrize(
    ("changes", "change", "message"),
    [
        ({}, {"epochs": 1}, "--epochs 1 --steps 2"),
        ({}, {"precision": "float64"}, r"--precision.*float64"),
        (
            {"patch_size": 300},
            {},
            r"cbsn prepare .*--patch_size 300 --out",
        ),
        ({}, {"white": 255.0}, "omit --white"),
        ({}, {"hold_out": 0.5}, "--hold_out is for stacks.*Received: --hold_out 0.5"),
        ({}, {"source": Path("there")}, "--source is .*omit it. Received: --source there"),
        ({}, {"perceptual_weights": Path("no.h5")}, "Received: --recipe n2v-unet --perceptual_w"),
        ({"lr_decay_steps": 1}, {"recipe": "photo"}, "'photo' has no --lr_steps: omit it"),
    ],
)
def test_what_does_not_fit_is_refused(options, changes, change, message):
    options = {**options, **change}
    recipe = options.pop("recipe", "n2v-unet")
    with pytest.raises(ConfigError, match=message):
        train(recipe, {**UNET, **changes}, RunOptions(name="a", **options))
    assert not options["checkpoints"].exists()


@pytest.mark.slow
def test_validation_with_noise_needs_clean_pictures_only(options, tmp_path, random, capsys):
    """The clean side of the pairs."""
    Image.fromarray(random.integers(0, 256, (30, 30, 3)).astype("uint8")).save(tmp_path / "a.png")
    chosen = {**options, "noise": Noise.parse(None, "25", None)}
    given = RunOptions(name="a", val_every=1, val_clean=str(tmp_path / "a.png"), **chosen)
    folder = train("n2v-unet", UNET, given)
    assert capsys.readouterr().out.count("validation PSNR") == 2
    assert _facts(folder)["noise"] == "gaussian noise, σ 25"


def test_gray_pictures_get_a_gray_network(settings, tmp_path, random):
    with RecordWriter(tmp_path / "gray.tfrecords") as writer:
        gray = random.integers(0, 256, (256, 256, 1)).astype("uint8")
        writer.write(np.repeat(gray, 3, axis=-1))
    for given, channels in ((None, 1), (True, 1), (False, 3)):
        dataset = str(tmp_path / "gray.tfrecords")
        recipe = settings("n2v-unet", UNET, dataset=dataset, gray=given).recipe
        assert recipe.network_config["channels"] == channels
    assert settings("n2v-unet", UNET).recipe.network_config["channels"] == 3
    assert settings("n2v-unet", UNET, gray=True).recipe.network_config["channels"] == 1


def test_strides_are_chosen_by_the_patches(settings, tmp_path, random):
    slope = np.linspace(60, 180, 256)[:, None, None]
    noise = random.normal(size=(8, 256, 256, 3))
    patches = slope + 60 * uniform_filter(noise, (1, 3, 3, 1))
    with RecordWriter(tmp_path / "patches.tfrecords") as writer:
        for patch in patches:
            writer.write(np.clip(np.rint(patch), 0, 255).astype("uint8"))
    changes = {**TINY, "patch_size": 30, "stride_b": "auto"}
    resolved = settings("cbsn", changes, dataset=str(tmp_path / "patches.tfrecords"))
    assert resolved.recipe.objective_config["stride_b"] == 3
    assert "--stride_b 3" in "".join(resolved.why_strides)


def test_masks_are_chosen_by_the_patches(settings, tmp_path, random):
    slope = np.linspace(60, 180, 256)[:, None, None]
    noise = uniform_filter(random.normal(size=(8, 256, 256, 3)), (1, 1, 3, 1))
    with RecordWriter(tmp_path / "patches.tfrecords") as writer:
        for patch in slope + 30 * noise:
            writer.write(np.clip(np.rint(patch), 0, 255).astype("uint8"))
    changes = {**UNET, "mask_shape": "auto"}
    resolved = settings("n2v-unet", changes, dataset=str(tmp_path / "patches.tfrecords"))
    assert resolved.recipe.network_config["mask_shape"] == "x:2"
    assert resolved.why_strides[0] == "Mask: x:2"
    assert "over 2 px along rows only" in resolved.why_strides[1]


def test_runs_of_any_name_and_the_command_that_is_printed(options, no_steps, capsys):
    name = "a'b\n$x"
    given = RunOptions(name=name, precision="float32", accumulate=2, **options)
    folder = train("n2v-unet", UNET, given)
    line = "Precision float32: as requested. Workers: 1, devices: 1, parts of a batch on each: 2."
    output = capsys.readouterr().out
    assert f"{line}\n" in output
    command = shlex.split(output.partition("Denoise with: ")[2])
    assert command == ["cbsn", "denoise", "PICTURES", "--model", str(folder)]
    no_steps()
    folder = train("n2v-unet", UNET, RunOptions(name=name, resume=False, **options))
    assert json.loads((folder / "run.json").read_text())["dataset"] == options["dataset"]
    assert len([p for p in folder.parent.iterdir() if not p.name.startswith(".")]) == 2


def test_run_and_model_say_how_weights_are_averaged(options, no_steps, capsys):
    folder = train("n2v-unet", UNET, RunOptions(name="trained", ema=0.5, **options))
    assert _facts(folder)["ema"] == Denoiser.load(folder).recipe.ema == 0.5
    no_steps()
    for ema in (0.5, 0.9):
        folder = train("n2v-unet", UNET, RunOptions(name="a", ema=ema, **options))
        facts = _facts(folder)
        assert (facts["ema"], facts["average"]) == (ema, True)
    assert "Continuing with other settings: ema=0.5 → ema=0.9\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"average=True.*Received: average=False"):
        train("n2v-unet", UNET, RunOptions(name="a", ema=0, **options))


def test_pictures_of_any_name_are_trained_on(options, tmp_path, random, monkeypatch):
    name = os.fsdecode(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Image.fromarray(random.integers(0, 256, (64, 64, 3)).astype("uint8")).save(f"{name}/a.png")
    options = {**options, "dataset": name, "val_clean": name, "val_noisy": name}
    folder = train("n2v-unet", UNET, RunOptions(name="a", **options))
    assert _facts(folder)["dataset"] == name
    assert "validation_psnr" in (folder / "metrics.jsonl").read_text()


def test_damaged_run_files_are_named(options):
    for content in ("[1]", "3", "[" * 10**5, '"a"', "\0"):
        run = options["checkpoints"] / "a"
        run.mkdir(parents=True, exist_ok=True)
        (run / "run.json").write_text(content)
        with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
            train("n2v-unet", UNET, RunOptions(name="a", **options))


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("n2n-resunet", {}, "two noisy shots.*--second_shots FOLDER.*--noise_sigma"),
        ("n2n-resunet", {"teacher": ["cbsn"]}, "two noisy shots.*omit --teacher"),
        ("n2n-resunet", {"perceptual_weights": Path("no.h5")}, "--lmbda above 0"),
        ("n2v-unet", {"second_shots": "b"}, "one noisy shot.*omit --second_shots"),
        ("n2v-unet", {"teacher": ["cbsn"]}, "one noisy shot.*omit --teacher.* cbsn$"),
        ("distill", {}, "--teacher photo.*--second_shots FOLDER"),
        ("distill", {"noise": Noise("gaussian", (5, 5))}, "--teacher photo.*--second_shots"),
    ],
)
def test_shots_must_be_as_many_as_the_recipe_takes(options, recipe, change, message):
    with pytest.raises(ConfigError, match=message):
        train(recipe, {"max_steps": 2}, RunOptions(name="a", **{**options, **change}))


@pytest.mark.slow
def test_a_student_may_learn_from_many_holes(options, tmp_path, capsys):
    changes = {"patch_size": 32, "batch_size": 2, "max_steps": 2, "filters": 4, "depth": 1}
    options = {**options, "precision": "float32"}
    teacher = train("tmbsn", {**changes, "hole": 5}, RunOptions(name="teacher", **options))
    options |= {"teacher": [str(teacher)], "teacher_holes": [1, 5]}
    for targets, count in (("one", 2), ("mean", 1)):
        chosen = RunOptions(name=targets, targets=targets, **options)
        folder = train("distill", changes, chosen)
        assert len([*(folder / "targets").glob("00000*")]) == count
        facts = json.loads((folder / "run.json").read_text())
        assert facts["teacher_holes"] == [1, 5]
        assert facts["targets"] == targets
    output = capsys.readouterr().out
    assert "with holes of 1, 5 px; each crop learns from one of the pictures." in output
    assert "with holes of 1, 5 px.\n" in output


@pytest.mark.slow
def test_a_hole_may_be_chosen_by_the_noise(options, tmp_path, random):
    ramp = np.linspace(60, 180, 256)[:, None, None] + random.normal(0, 20, (256, 256, 3))
    (tmp_path / "flat").mkdir()
    Image.fromarray(np.clip(ramp, 0, 255).astype("uint8")).save(tmp_path / "flat/a.png")
    changes = {"patch_size": 32, "batch_size": 2, "max_steps": 1, "filters": 4, "depth": 1}
    given = {**options, "dataset": str(tmp_path / "flat"), "precision": "float32"}
    folder = train("tmbsn", {**changes, "hole": "auto"}, RunOptions(name="auto", **given))
    network = Denoiser.load(folder).network
    assert (network.hole, network.denoise_hole) == (1, 1)  # as the noise is white


@pytest.mark.usefixtures("model")
def test_teachers_are_checked_before_any_work(options, tmp_path):
    given = {**options, "dataset": str(tmp_path / "absent")}
    for change, message in (
        ({"teacher": [str(tmp_path / "none")]}, "none"),
        ({"teacher": [str(tmp_path / "model")], "teacher_holes": [3]}, "omit --teacher_holes"),
    ):
        with pytest.raises(CbsnError, match=message):
            train("distill", {"max_steps": 2}, RunOptions(name="a", **{**given, **change}))
        assert not (options["checkpoints"] / "a").exists()


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_does(options, tmp_path, model, capsys):
    teacher = tmp_path / model
    changes = {"filters": 8, "depth": 1, "patch_size": 32, "batch_size": 4, "learning_rate": 3e-3}
    options = {**options, "precision": "float32", "teacher": [str(teacher)]}
    folders = [
        train("distill", {**changes, "max_steps": steps}, RunOptions(name=f"s{steps}", **options))
        for steps in (1, 150)
    ]
    # The second run's teacher had nothing to do with the first's.
    assert (folders[1] / "targets" / "00000.tfrecords").is_file()
    noisy = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype("uint8")
    taught = Denoiser.load(teacher, DenoiseOptions(precision="float32", self_ensemble=True))(noisy)
    taught = with_low_frequencies(noisy[None] / 255, taught[None] / 255)[0] * 255
    errors = [
        np.abs(Denoiser.load(folder, DenoiseOptions(precision="float32"))(noisy) - taught).mean()
        for folder in folders
    ]
    # With other seeds, which change more than any rounding, it is 0.27 to 0.55 times the first.
    assert errors[1] < 0.7 * errors[0]
    capsys.readouterr()
    # Which goes on from there on other terms, and does not forget what it knows.
    again = train(
        "distill",
        {"patch_size": 32, "batch_size": 4, "learning_rate": 1e-5, "max_steps": 1},
        RunOptions(name="again", init=str(folders[1]), **options),
    )
    assert "filters 8, depth 1" in capsys.readouterr().out
    for ours, theirs in zip(_weights(again), _weights(folders[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_a_student_sees_its_teachers_pictures_with_their_own_noise(
    options, tmp_path, model, no_steps, capsys
):
    no_steps()
    chosen = {**options, "teacher": [str(tmp_path / model)], "own_noise": (0.5, 2.0)}
    run = train("distill", {**OWN_NOISE, "max_steps": 1}, RunOptions(name="a", **chosen))
    noise = _facts(run)["noise"]
    assert noise == "noise measured in 5 places, 0.5-2 times as strong"
    assert f"sees the teacher's pictures with {noise}" in capsys.readouterr().out


@pytest.mark.slow
def test_their_own_noise_is_the_same_after_a_break(options, tmp_path, model, signal_at):
    chosen = {**options, "teacher": [str(tmp_path / model)], "own_noise": (0.5, 2.0)}
    whole = train("distill", OWN_NOISE, RunOptions(name="whole", **chosen))
    signal_at(2)
    with pytest.raises(TrainingStopped, match="at step 2"):
        train("distill", OWN_NOISE, RunOptions(name="parts", **chosen))
    signal_at(0)
    parts = train("distill", OWN_NOISE, RunOptions(name="parts", **chosen))
    for ours, theirs in zip(_weights(parts), _weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_shots_of_real_scenes(tmp_path, monkeypatch):
    """Noisy and clean photographs stand in for two shots: what is common to both is learnt."""
    shots = Path(__file__).resolve().parents[3] / "shared/data/cc15"
    if not shots.is_dir():
        pytest.skip("the photographs of shared/data/cc15 are not here")
    monkeypatch.chdir(tmp_path)
    for kind in ("noisy", "clean"):
        Path(kind).mkdir()
        for path in sorted((shots / kind).iterdir())[:2]:
            Path(kind, path.name).symlink_to(path)
    changes = {"filters": 8, "depth": 2, "patch_size": 32, "batch_size": 4, "max_steps": 200}
    options = RunOptions(name="a", dataset="noisy", second_shots="clean", precision="float32")
    folder = train("n2n-resunet", {**changes, "learning_rate": 2e-3}, options)
    pairs = PicturePairs("noisy", "clean")
    before, _ = validate(pairs, lambda noisy, white: noisy, stop=lambda: False)
    after, _ = validate(pairs, Denoiser.load(folder), stop=lambda: False)
    assert after > before + 0.05
