"""Training on a GPU."""

import numpy as np
import pytest
import tensorflow as tf

from cbsn.augmentation import PhotoAugmentation
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.recipes import customised
from cbsn.training.checkpoints import Checkpoints
from cbsn.training.trainer import Trainer
from tests import rounding

SMALL = {
    "cbsn": {"filters": 8, "num_modules": 1, "patch_size": 20},
    "apbsn": {"filters": 8, "num_modules": 1, "patch_size": 20},
    "ssbsn": {"filters": 8, "num_modules": 1, "num_attention": 1, "patch_size": 20},
    "photo": {"filters": 8, "depth": 1, "patch_size": 32, "max_steps": 1000},
}
ROWS = 4
RATE = 1e-3


def _recipe(name):
    return customised(name, **SMALL[name], batch_size=ROWS, learning_rate=RATE)


def _trainer(name, **options):
    recipe = _recipe(name)
    if recipe.augmentation != "none":
        noise = CorrelatedNoise([np.array([[128.0, 10.0]])] * 3, np.eye(3)[:, :, None, None])
        options["augmentation"] = PhotoAugmentation([noise], recipe.patch_size)
    return Trainer(recipe, **options)


def _batches(name, steps):
    """Smooth pictures with noise, uint8; those that an augmentation takes are twice as large."""
    recipe = _recipe(name)
    side = recipe.patch_size * (1 if recipe.augmentation == "none" else 2)
    random = np.random.default_rng(0)
    slope = np.linspace(40, 200, side)[:, None, None]
    pictures = slope + random.normal(0, 20, (steps, ROWS, side, side, 3))
    return np.clip(pictures, 0, 255).astype("uint8")


def _weights(trainer, network="network"):
    return np.concatenate([w.ravel() for w in getattr(trainer, network).get_weights()])


def _bound(trainer, steps):
    """How far apart weights may be after some steps that were summed in another order."""
    recipe = trainer.recipe
    error = rounding.of_gradients(trainer.network, recipe.batch_size * recipe.patch_size**2)
    return rounding.of_adam(error, steps * RATE)


def _gradients(trainer, batch):
    """The gradients of a step, by Adam's first moment, which is a tenth of them after it."""
    terms = trainer.train_step(tf.constant(batch))
    moments = trainer.optimizer._momentums
    return float(terms["total"]), np.concatenate([10 * np.ravel(m) for m in moments])


@pytest.mark.parametrize("name", SMALL)
def test_xla_changes_nothing_but_the_order_of_sums(device, name):
    plain, compiled = (_trainer(name, xla=xla) for xla in (False, True))
    (loss, gradients), (loss_xla, gradients_xla) = (
        _gradients(trainer, _batches(name, 1)[0]) for trainer in (plain, compiled)
    )
    recipe = plain.recipe
    error = rounding.of_gradients(plain.network, ROWS * recipe.patch_size**2)
    if recipe.augmentation == "none":
        assert loss_xla == pytest.approx(loss, rel=error)
        assert np.linalg.norm(gradients_xla - gradients) <= error * np.linalg.norm(gradients)
    else:
        # Where noise is rounded to 8 bits, and a block of a JPEG to its steps, one value in about
        # 1,000 goes the other way, by a level of 255 or some: no more than a tenth of the loss of
        # fresh weights.
        assert loss_xla == pytest.approx(loss, rel=0.01)
        assert np.linalg.norm(gradients_xla - gradients) <= 0.1 * np.linalg.norm(gradients)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_off_by_its_rounding_at_most(device, name):
    """By the rule of tests/inference/test_engines.py: √n 2⁻⁸ for n roundings.

    A convolution makes three on the way forth, and three on each of the two ways back: of the
    kernel, the sums, and the sums with their bias.
    """
    single, half = (
        _trainer(name, precision=precision, xla=False)
        for precision in ("float32", "mixed_bfloat16")
    )
    batch = _batches(name, 1)[0]
    (loss, gradients), (loss_half, gradients_half) = (
        _gradients(trainer, batch) for trainer in (single, half)
    )
    roundings = 9 * sum(len(w.shape) > 1 for w in single.network.weights)
    error = np.sqrt(roundings) * 2**-8
    assert loss_half == pytest.approx(loss, rel=error)
    apart = np.linalg.norm(gradients_half - gradients)
    assert 2**-10 * np.linalg.norm(gradients) < apart <= error * np.linalg.norm(gradients)
    for batch in _batches(name, 5):
        metrics = half.train_step(tf.constant(batch))
        assert float(metrics["skipped"]) == 0
        assert np.isfinite(float(metrics["total"]))


def test_deterministic_runs_have_the_same_bits(device, run_on):
    """In two processes, as kernels are chosen by measuring."""
    code = """
        import hashlib
        tf.config.experimental.enable_op_determinism()
        from tests.gpu.test_training import _batches, _trainer, _weights
        for name, precision in ("cbsn", "mixed_bfloat16"), ("photo", "float32"):
            trainer = _trainer(name, precision=precision)
            for batch in _batches(name, 5):
                loss = trainer.train_step(tf.constant(batch))["total"].numpy()
            print(loss.tobytes().hex(), hashlib.sha256(_weights(trainer)).hexdigest())
        """
    first, second = (run_on(device, code) for _ in range(2))
    assert len(first.split()) == 4
    assert first == second


@pytest.mark.gpu
@pytest.mark.parametrize(("start", "end"), [("CPU:0", "GPU:0"), ("GPU:0", "CPU:0")])
def test_a_run_goes_on_on_another_device(start, end, tmp_path):
    batches = _batches("cbsn", 6)

    def train(device, first, last):
        with tf.device(device):
            trainer = _trainer("cbsn", ema=0.9, xla=device.startswith("GPU"))
            checkpoints = Checkpoints(tmp_path, trainer)
            restored = checkpoints.restore()
            assert restored == first
            for batch in batches[first:last]:
                trainer.train_step(tf.constant(batch))
            return trainer, checkpoints

    whole, _ = train(start, 0, 6)
    _, checkpoints = train(start, 0, 3)
    checkpoints.save()
    other, _ = train(end, 3, 6)
    for value in (other.step, *(w.value for w in other.network.weights)):
        assert end in value.device
    for network in ("network", "average"):
        apart = rounding.rms(_weights(whole, network) - _weights(other, network))
        assert apart < _bound(whole, 6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cbsn", "ssbsn"])
def test_two_gpus_give_the_weights_of_one(run_on, name):
    """One GPU that is divided into two."""
    output = run_on(
        "GPU:0",
        f"""
        import numpy as np
        from tests.gpu.test_training import _batches, _bound, _trainer, _weights
        from tests.rounding import rms
        batches = _batches({name!r}, 6).astype("float32") / 255
        batches[3, 1, 0, 0] = np.nan  # a step that is skipped on both
        dataset = tf.data.Dataset.from_tensor_slices(batches)
        two = tf.distribute.MirroredStrategy(["GPU:0", "GPU:1"])
        runs = []
        for strategy in (None, two):
            trainer = _trainer({name!r}, strategy=strategy, ema=0.9)
            for batch in trainer.distribute(dataset):
                metrics = trainer.train_step(batch)
            assert trainer.skipped.numpy() == 1
            runs.append((float(metrics["total"]), _weights(trainer)))
        (loss, one), (loss_of_two, other) = runs
        np.testing.assert_allclose(loss_of_two, loss, rtol=1e-3)
        assert rms(one - other) < _bound(trainer, 6), rms(one - other)
        print("equal")
        """,
        gpus=2,
        megabytes=4096,
    )
    assert output.endswith("equal\n")


@pytest.mark.gpu
@pytest.mark.parametrize("xla", [False, True])
def test_a_batch_that_does_not_fit_is_taken_in_parts(run_on, xla):
    """Each patch takes some hundred MB, for channels of 240 × 240 float32 in two passes."""
    output = run_on(
        "GPU:0",
        f"""
        import numpy as np
        from cbsn.recipes import customised
        from cbsn.training.trainer import Trainer
        from tests import rounding
        recipe = customised(
            "cbsn", filters=96, num_modules=1, patch_size=240, batch_size=8, learning_rate=1e-3
        )
        random = np.random.default_rng(0)
        slope = np.linspace(40, 200, 240)[:, None, None]
        batches = np.clip(slope + random.normal(0, 20, (2, 8, 240, 240, 3)), 0, 255)
        weights = []
        for accumulate in (1, 8):
            trainer = Trainer(recipe, accumulate=accumulate, xla={xla})
            for batch in batches.astype("uint8"):
                trainer.train_step(tf.constant(batch))
            assert trainer.step.numpy() == 2
            weights.append(np.concatenate([w.ravel() for w in trainer.network.get_weights()]))
            print("parts", trainer.accumulate)
        error = rounding.of_gradients(trainer.network, 8 * 240**2)
        apart = rounding.rms(np.subtract(*weights))
        assert apart < rounding.of_adam(error, 2 * 1e-3), apart
        """,
        megabytes=1536,
    )
    found, given = (int(line.split()[1]) for line in output.splitlines() if "parts" in line)
    assert found in (2, 4, 8)
    assert given == 8


@pytest.mark.gpu
def test_a_patch_that_does_not_fit_is_an_error(run_on):
    output = run_on(
        "GPU:0",
        """
        import numpy as np
        from cbsn.errors import TrainingError
        from cbsn.recipes import customised
        from cbsn.training.trainer import Trainer
        recipe = customised("cbsn", filters=64, num_modules=2, patch_size=600, batch_size=2)
        trainer = Trainer(recipe, xla=False)
        try:
            trainer.train_step(tf.zeros((2, 600, 600, 3), tf.uint8))
        except TrainingError as error:
            print(error)
        """,
        megabytes=512,
    )
    assert "not enough memory" in output
    assert "--patch_size" in output
