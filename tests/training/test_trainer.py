import dataclasses
import itertools
import random as python_random

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.augmentation import PhotoAugmentation
from cbsn.errors import ConfigError, TrainingError
from cbsn.models.tf1_checkpoint import TF1Checkpoint, variable_names
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.objectives.objective import Objective
from cbsn.recipes import RECIPES, customised
from cbsn.training import trainer as trainer_module
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer
from tests import rounding


@pytest.fixture
def batch(random):
    slope = np.linspace(40, 200, 20)[:, None, None]
    return np.clip(slope + random.normal(0, 20, (2, 20, 20, 3)), 0, 255).astype("uint8")


def _weights(trainer):
    return np.concatenate([w.ravel() for w in trainer.network.get_weights()])


class Identity:
    def batch(self, x):
        return x


class Given:
    def __init__(self, indices, first):
        self.indices = indices
        self.first = first

    def integers(self, shape, high):
        rows = tf.reshape(self.indices, (-1, *shape[1:]))
        # Not `rows[first:stop]`, whose size XLA cannot infer.
        return tf.cast(tf.gather(rows, self.first + tf.range(shape[0])), tf.int32)


@pytest.mark.usefixtures("on_cpu")  # on a GPU: tests/gpu/test_golden.py
@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_five_steps_golden(golden, accumulate, monkeypatch):
    """Adam's ε, the order of its operations, and the step at which the rate is halved."""
    data = np.load(golden("small/adam5.npz"))
    recipe = dataclasses.replace(
        RECIPES["cbsn"],
        network_config={"filters": 16, "num_modules": 2},
        patch_size=60,
        batch_size=2,
    )
    trainer = Trainer(recipe, accumulate=accumulate)
    TF1Checkpoint(golden("small/CBSN_small.ckpt")).load_into(trainer.network)
    trainer.step.assign(data["start_step"])
    trainer._normalization = Identity()
    mask = tf.Variable(data["rand_mask"][0], dtype=tf.int64)  # GPUs have no variables of int32
    monkeypatch.setattr(trainer_module, "StepRandom", lambda *args: Given(mask, args[3]))
    weights = {w.path.split("/", 1)[1]: w for w in trainer.network.weights}
    for k in range(5):
        mask.assign(data["rand_mask"][k])
        metrics = trainer.train_step(tf.constant(data["x"][k]))
        names = ("blind", "invariance", "self", "total", "learning_rate")
        got = [metrics[name].numpy() for name in names]
        np.testing.assert_allclose(got, data["losses"][k], rtol=2e-5)
        for theirs, ours in variable_names(2):
            expected = data[f"after{k + 1}:{theirs}"]
            np.testing.assert_allclose(
                weights[ours].numpy(), expected, rtol=0, atol=1e-5, err_msg=f"{ours} after {k + 1}"
            )
    assert trainer.step.numpy() == data["start_step"] + 5


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_training_lowers_the_loss(any_recipe, batch, precision):
    trainer = Trainer(dataclasses.replace(any_recipe, learning_rate=1e-2), precision=precision)
    objective = any_recipe.build_objective()
    if objective.SHOTS == 2:
        # The same shot a little darker: that can be learnt in a few steps.
        batch = np.concatenate([batch, batch // 2], axis=-1)
    if any_recipe.patch_depth > 1:
        noise = np.random.default_rng(0).normal(0, 20, (2, any_recipe.patch_depth, 20, 20, 3))
        batch = np.clip(np.linspace(40, 200, 20)[:, None, None] + noise, 0, 255).astype("uint8")
    term = objective.TERMS[0]
    losses = [trainer.train_step(batch)[term].numpy() for _ in range(30)]
    assert {w.dtype for w in trainer.network.weights} == {"float32"}
    assert np.isfinite(losses).all()
    # With other seeds, which change more than any rounding, it is 0.1 to 0.82 times the first.
    assert np.mean(losses[-10:]) < 0.95 * losses[0]


def test_weights_and_steps_are_functions_of_the_seed(recipe, batch):
    """On the CPU; a GPU needs `--deterministic` for the same bits (see tests/gpu)."""

    def begin(seed):
        trainer = Trainer(recipe, seed=seed)
        trainer.step.assign(50_000)
        _, gradients, _ = trainer._gradients(tf.constant(batch))
        return _weights(trainer), np.concatenate([np.ravel(g) for g in gradients])

    state = python_random.getstate(), np.random.get_state()[1].tolist()
    with tf.device("CPU:0"):
        first, again, other = begin(1), begin(1), begin(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    # A trainer is no reason for others to draw other numbers.
    assert state == (python_random.getstate(), np.random.get_state()[1].tolist())


def test_dtypes_of_the_batch_are_one_picture(recipe, batch):
    trainer = Trainer(recipe)
    totals = []
    for x in (batch, (batch.astype("uint16") * 257), (batch / 255).astype("float32")):
        terms, _, _ = trainer._gradients(tf.constant(x))
        totals.append(terms["total"].numpy())
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


def test_good_steps_are_averaged_and_others_change_nothing(recipe, batch):
    trainer = Trainer(recipe, ema=0.5)
    good = tf.constant(batch / 255, tf.float32)
    bad = tf.tensor_scatter_nd_update(good, [[0, 3, 3, 0]], [np.nan])
    average, in_row, skipped = _weights(trainer), 0, 0
    for step, x in enumerate((good, bad, good * np.inf, good, good)):
        before = [*_values(trainer), *trainer.average.get_weights()]
        stop = step == 3
        metrics = trainer.train_step(x, tf.constant(stop))
        after = [*_values(trainer), *trainer.average.get_weights()]
        assert bool(metrics["stop"]) == stop
        assert metrics["skipped"].numpy() == (x is not good)
        if x is good:
            in_row = 0
            decay = min(0.5, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * _weights(trainer)
            assert np.isfinite(metrics["total"].numpy())
            assert not np.array_equal(before[0], after[0])
        else:
            in_row, skipped = in_row + 1, skipped + 1
            for a, b in zip(before, after, strict=True):
                np.testing.assert_array_equal(a, b)
        assert trainer.step.numpy() == step + 1
        assert (trainer.skipped.numpy(), trainer.skipped_in_row.numpy()) == (skipped, in_row)
    assert trainer.optimizer.iterations.numpy() == 3
    got = np.concatenate([w.ravel() for w in trainer.average.get_weights()])
    np.testing.assert_allclose(got, average, atol=1e-6)
    assert trainer.model is trainer.average


def _values(trainer):
    """All that a step changes, but for its learning rate and counters."""
    slots = [v for v in trainer.optimizer.variables if v.ndim]
    return [_weights(trainer), *(v.numpy() for v in slots)]


def test_float16_scales_the_loss(recipe, batch):
    trainer = Trainer(recipe, precision="mixed_float16")
    assert trainer.loss_scale.numpy() == 2**15
    trainer.train_step(batch)
    scale, skipped = trainer.loss_scale.numpy(), trainer.skipped.numpy()
    assert scale == 2.0 ** (15 - skipped)

    trainer.loss_scale.assign(2.0**40)  # far above what float16 holds
    before = _weights(trainer)
    assert trainer.train_step(batch)["skipped"].numpy() == 1
    assert trainer.loss_scale.numpy() < 2.0**40
    np.testing.assert_array_equal(_weights(trainer), before)


def test_float16_gradients_are_those_of_float32(recipe, batch):
    trainers = [Trainer(recipe, precision=p) for p in ("float32", "mixed_float16")]
    gradients = (t._gradients(tf.constant(batch))[1] for t in trainers)
    single, half = (np.concatenate([np.ravel(g) for g in each]) for each in gradients)
    assert np.linalg.norm(single - half) < 0.02 * np.linalg.norm(single)


@pytest.mark.parametrize("accumulate", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_accumulated_parts_make_the_same_step(recipe, random, accumulate):
    recipe = dataclasses.replace(recipe, batch_size=6)
    batch = tf.constant(random.integers(0, 256, (6, 20, 20, 3)).astype("uint8"))
    trainers = [Trainer(recipe, accumulate=n) for n in (1, accumulate)]
    for trainer in trainers:
        trainer.step.assign(150_000)
    (terms, whole, _), (terms_parts, parts, _) = (t._gradients(batch) for t in trainers)
    for name, term in terms.items():
        assert terms_parts[name].numpy() == pytest.approx(term.numpy(), rel=1e-5)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(a).max()))


@pytest.mark.slow
def test_accumulating_trains_the_weights_of_the_large_batch(any_recipe, random):
    recipe = dataclasses.replace(any_recipe, batch_size=4, learning_rate=1e-4)
    channels = 3 * recipe.build_objective().SHOTS
    trainers = [Trainer(recipe, accumulate=n) for n in (1, 4)]
    depth = (recipe.patch_depth,) if recipe.patch_depth > 1 else ()
    _assert_train_alike(trainers, 20, random, (4, *depth, 20, 20, channels))


def _assert_train_alike(trainers, steps, random, shape):
    """Their weights are the same after some steps, but for what rounding does to them."""
    before, recipe, path = _weights(trainers[0]), trainers[0].recipe, 0
    for _ in range(steps):
        batch = tf.constant(random.integers(0, 256, shape).astype("uint8"))
        for trainer in trainers:
            metrics = trainer.train_step(batch)
        path += float(metrics["learning_rate"])
    one, other = (_weights(trainer) for trainer in trainers)
    pixels = recipe.batch_size * recipe.patch_depth * recipe.patch_size**2
    error = rounding.of_gradients(trainers[0].network, pixels)
    bound = rounding.of_adam(error, path)
    assert rounding.rms(one - other) < bound < rounding.rms(one - before) / 3


@pytest.mark.parametrize(
    ("size", "patch_size", "expected"), [((32, 5), 120, 1), ((128, 9), 120, 8), ((64, 9), 120, 4)]
)
def test_parts_are_chosen_by_memory(size, patch_size, expected, monkeypatch):
    config = dict(zip(("filters", "num_modules"), size, strict=True))
    sizes = {"network_config": config, "batch_size": 8, "patch_size": patch_size}
    recipe = dataclasses.replace(RECIPES["cbsn"], **sizes)
    monkeypatch.setattr(trainer_module, "has_gpu", lambda: False)
    assert Trainer(recipe).accumulate == expected


@pytest.mark.parametrize("accumulate", [-1, 4])
def test_parts_that_do_not_fit_are_refused(recipe, accumulate):
    with pytest.raises(ConfigError, match=rf"2 patches.*--accumulate {accumulate}"):
        Trainer(recipe, accumulate=accumulate)


def test_gradients_are_clipped_by_their_global_norm(recipe, batch):
    _, free, _ = Trainer(recipe)._gradients(tf.constant(batch))
    norm = tf.linalg.global_norm(free).numpy()
    for longest, scale in ((norm / 3, 1 / 3), (norm * 2, 1)):
        clipped_recipe = dataclasses.replace(recipe, clip_norm=float(longest))
        _, clipped, _ = Trainer(clipped_recipe)._gradients(tf.constant(batch))
        for a, b in zip(free, clipped, strict=True):
            np.testing.assert_allclose(a * scale, b, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "xla"), [("cbsn", False), ("cbsn", True), ("ssbsn", False)])
def test_two_devices_give_the_weights_of_one(name, xla, run_python):
    """In a process of its own, as logical devices must be made before TensorFlow starts."""
    result = run_python(
        """
        import dataclasses, numpy as np, tensorflow as tf
        tf.config.set_visible_devices([], "GPU")
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        from cbsn.recipes import RECIPES
        from cbsn.training.trainer import Trainer

        config = {"filters": 4, "num_modules": 1}
        if "NAME" == "ssbsn":
            config["num_attention"] = 1
        recipe = dataclasses.replace(
            RECIPES["NAME"], network_config=config,
            patch_size=20, batch_size=4, learning_rate=1e-3,
            clip_norm=0.1,  # a third of these gradients' norm
        )
        batches = np.random.default_rng(0).integers(0, 256, (6, 4, 20, 20, 3)).astype("uint8")
        batches = batches.astype("float32") / 255
        batches[3, 1, 0, 0] = np.nan
        dataset = tf.data.Dataset.from_tensor_slices(batches)
        runs = []
        two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        for strategy, parts in ((None, 1), (two, 2)):
            trainer = Trainer(
                recipe, strategy=strategy, accumulate=parts, ema=0.9, xla=XLA and bool(strategy)
            )
            trainer.step.assign(200_000)
            for batch in trainer.distribute(dataset):
                metrics = trainer.train_step(batch)
            assert trainer.skipped.numpy() == 1, trainer.skipped
            runs.append((metrics, trainer.network.get_weights() + trainer.average.get_weights()))
        (one, weights_one), (two, weights_two) = runs
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
        for a, b in zip(weights_one, weights_two, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        print("equal")
        """.replace("NAME", name).replace("XLA", str(xla))
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-3000:]


def _run_out_of_memory():
    raise MemoryError


class Hungry(Objective):
    """Has memory for some patches at a time, and not for more. XLA cannot compile it."""

    def __init__(self, rows):
        self._rows = rows

    def __call__(self, network, noisy, step, random):
        total = tf.reduce_mean(tf.square(network(noisy, blind=False) - noisy))
        if noisy.shape[0] > self._rows:
            # As TensorFlow's own error, for which an allocator waits ten seconds.
            total += tf.reshape(tf.numpy_function(_run_out_of_memory, [], tf.float32), ())
        return {"total": total}


@pytest.mark.parametrize(("rows", "parts"), [(3, 2), pytest.param(1, 6, marks=pytest.mark.slow)])
def test_out_of_memory_a_step_is_repeated_in_more_parts(recipe, random, rows, parts):
    recipe = dataclasses.replace(recipe, batch_size=6)
    batches = random.integers(0, 256, (2, 6, 20, 20, 3)).astype("uint8")
    hungry = Trainer(recipe, ema=0.9, objective=Hungry(rows), xla=False)
    expected = Trainer(recipe, ema=0.9, objective=Hungry(6), accumulate=parts, xla=False)
    for batch in batches:
        metrics, same = (t.train_step(tf.constant(batch)) for t in (hungry, expected))
        for term in same:
            # Means of up to 6·20²·3 values, each rounded, perhaps in another order.
            np.testing.assert_allclose(metrics[term], same[term], rtol=7200 * 2**-24)
    assert hungry.accumulate == parts
    for counter in (hungry.step, hungry.optimizer.iterations):
        assert counter.numpy() == 2
    assert hungry.skipped.numpy() == 0
    error = rounding.of_gradients(hungry.network, 6 * recipe.patch_size**2)
    bound = rounding.of_adam(error, 2 * recipe.learning_rate)
    assert np.sqrt(np.mean((_weights(hungry) - _weights(expected)) ** 2)) < bound


def test_out_of_memory_for_one_patch_is_an_error(recipe, batch):
    trainer = Trainer(recipe, objective=Hungry(0), xla=False)
    weights = _weights(trainer)
    with pytest.raises(TrainingError, match=r"one patch of 20 px.*--patch_size.*--precision"):
        trainer.train_step(tf.constant(batch))
    assert trainer.step.numpy() == 0
    np.testing.assert_array_equal(_weights(trainer), weights)


def test_a_worker_out_of_memory_does_not_go_on_alone(recipe, batch, monkeypatch):
    trainer = Trainer(recipe, objective=Hungry(1), xla=False)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", type(trainer.strategy))
    with pytest.raises(TrainingError, match="on all workers with --accumulate 2"):
        trainer.train_step(tf.constant(batch))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_xla_makes_the_same_steps(random, parts, on_cpu):
    """With other recipes, too, in tests/gpu."""
    recipe = customised("cbsn", filters=4, num_modules=2, patch_size=20, batch_size=4)
    recipe = dataclasses.replace(recipe, learning_rate=1e-3)
    batches = random.integers(0, 256, (3, 4, 20, 20, 3)).astype("uint8")
    trainers = [Trainer(recipe, xla=xla, accumulate=parts) for xla in (False, True)]
    for batch in batches:
        plain, compiled = (t.train_step(tf.constant(batch)) for t in trainers)
        for term in plain:
            # Means of up to 4·20²·3 values, each rounded, in another order.
            np.testing.assert_allclose(compiled[term], plain[term], rtol=4800 * 2**-24)
    error = rounding.of_gradients(trainers[0].network, 4 * recipe.patch_size**2)
    bound = rounding.of_adam(error, 3 * 1e-3)
    difference = _weights(trainers[0]) - _weights(trainers[1])
    assert np.sqrt(np.mean(difference**2)) < bound


def test_random_numbers_are_the_same_with_xla():
    """TensorFlow's own floats are not."""
    step = tf.Variable(7, dtype=tf.int64)

    def draw():
        random = StepRandom(3, step, 4, tf.constant(2), 2)
        return random.integers((2, 5), 9), random.uniform((2, 33)), random.normal((2, 3, 4, 4))

    plain, compiled = tf.function(draw)(), tf.function(draw, jit_compile=True)()
    np.testing.assert_array_equal(plain[0], compiled[0])
    np.testing.assert_array_equal(plain[1], compiled[1])
    # A logarithm, a root and a cosine, each of which may be a few roundings off.
    np.testing.assert_allclose(plain[2], compiled[2], rtol=0, atol=32 * 2**-24 * 6)


def test_a_batch_that_cannot_be_shared_is_refused(recipe):
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(ConfigError, match="multiple of 3"):
        Trainer(recipe, strategy=Three())


@pytest.mark.parametrize("ema", [-0.1, 1.0, np.nan])
def test_bad_ema_is_refused(recipe, ema):
    with pytest.raises(ConfigError, match="--ema"):
        Trainer(recipe, ema=ema)


def test_the_default_dtype_policy_does_not_leak_in(recipe):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert Trainer(recipe).network.compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def _photo_recipe(channels=3, **changes):
    small = {"filters": 4, "depth": 1, "patch_size": 32, "batch_size": 4, **changes}
    return customised("photo", channels=channels, max_steps=1000, **small)


def _augmentation(channels=3, places=1):
    """White noise of σ 10, as measured in some places."""
    covariance = np.eye(channels)[:, :, None, None]
    model = CorrelatedNoise([np.array([[128.0, 10.0]])] * channels, covariance)
    return PhotoAugmentation([model] * places, 32)


@pytest.mark.slow
def test_the_tables_of_the_noise_are_not_in_the_graph():
    """A training has hundreds of MB of them."""
    places = 300
    trainer = Trainer(_photo_recipe(), augmentation=_augmentation(places=places))
    spec = tf.TensorSpec((4, 64, 64, 3), tf.uint8)
    graph = trainer.concrete_step(spec).graph.as_graph_def()
    assert graph.ByteSize() < places * 3 * 3 * 32 * 32 * 4 / 2


class Recording:
    """An augmentation that keeps what it was given, and what it made of it."""

    def __init__(self, augmentation):
        self._augmentation = augmentation
        self.given, self.made = [], []

    def __call__(self, pictures, random):
        output = self._augmentation(pictures, random)
        self.given.append(pictures.numpy())
        self.made.append(output.numpy())
        return output


def test_an_augmentation_makes_other_pictures_at_each_step(random):
    batch = tf.constant(random.integers(0, 256, (4, 64, 64, 3)).astype("uint8"))
    pairs = {}
    for seed in (0, 1):
        recording = Recording(_augmentation())
        trainer = Trainer(_photo_recipe(), seed=seed, augmentation=recording)
        for step in (0, 1, 0)[: 3 - 2 * seed]:
            trainer.step.assign(step)
            trainer._gradients(batch)
        pairs[seed] = recording.made
    np.testing.assert_array_equal(pairs[0][0], pairs[0][2])
    # All have another window, light or orientation, and all but some other noise.
    for a, b in itertools.combinations([*pairs[0][:2], *pairs[1]], 2):
        assert (np.abs(a - b).mean(axis=(1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_augmentation_takes_all_dtypes_of_a_batch(random, channels):
    batch = random.integers(0, 256, (4, 64, 64, channels)).astype("uint8")
    recording = Recording(_augmentation(channels))
    trainer = Trainer(_photo_recipe(channels), augmentation=recording)
    for x in (batch, batch.astype("uint16") * 257, (batch / 255).astype("float32")):
        terms, gradients, _ = trainer._gradients(tf.constant(x))
        assert 0 < terms["total"].numpy() < 1
        assert any(np.abs(gradient).max() > 0 for gradient in gradients)
    for given, made in zip(recording.given, recording.made, strict=True):
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, batch / 255, atol=1e-6)
        assert made.shape == (4, 32, 32, 2 * channels)


def test_the_network_learns_from_what_the_augmentation_makes(random):
    """Its loss is that of the pairs."""
    batch = tf.constant(random.integers(0, 256, (4, 64, 64, 3)).astype("uint8"))
    recording = Recording(_augmentation())
    trainer = Trainer(_photo_recipe(), augmentation=recording)
    terms, _, _ = trainer._gradients(batch)
    noisy, clean = np.split(recording.made[0], 2, axis=-1)
    expected = np.abs(trainer.network(noisy) - clean).mean()
    assert terms["total"].numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulating_augmented_parts_trains_the_weights_of_the_large_batch(random, accumulate):
    """The pictures of all parts are made at once, so no part sees those of another."""
    recipe = _photo_recipe(learning_rate=1e-4)
    trainers = [
        Trainer(recipe, accumulate=n, augmentation=_augmentation()) for n in (1, accumulate)
    ]
    _assert_train_alike(trainers, 6, random, (4, 64, 64, 3))


@pytest.mark.slow
def test_two_devices_augment_as_one(run_python):
    """Each its rows of the batch.

    A rounding error may turn a few values the other way where noise is rounded to 8 bits, or a
    block of a JPEG to its steps: of 1,000 values about one. Other pictures are other in all values.
    """
    result = run_python(
        """
        import numpy as np, tensorflow as tf
        tf.config.set_visible_devices([], "GPU")
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        from cbsn.training.trainer import Trainer
        from tests.training.test_trainer import _augmentation, _photo_recipe

        batches = np.random.default_rng(0).integers(0, 256, (6, 4, 64, 64, 3)).astype("uint8")
        dataset = tf.data.Dataset.from_tensor_slices(batches)
        runs = []
        two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        for strategy, parts, seed in ((None, 1, 0), (two, 2, 0), (None, 1, 1)):
            trainer = Trainer(
                _photo_recipe(), strategy=strategy, accumulate=parts, augmentation=_augmentation()
            )
            trainer._seed = seed  # only of what is drawn in a step
            for batch in trainer.distribute(dataset):
                trainer.train_step(batch)
            runs.append(np.concatenate([w.ravel() for w in trainer.network.get_weights()]))
        one, two, other = runs
        apart, other = np.linalg.norm(two - one), np.linalg.norm(other - one)
        assert other > 0
        assert apart < 0.1 * other, (apart, other)
        print("equal")
        """
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-3000:]
