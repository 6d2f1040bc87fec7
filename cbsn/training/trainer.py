"""The training step: a recipe's loss, applied under `tf.distribute`."""

import contextlib
import itertools
import random as python_random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cbsn.data.records import size_text
from cbsn.devices import has_gpu, is_out_of_memory, set_up
from cbsn.errors import ConfigError, TrainingError, plain_reason
from cbsn.objectives.objective import Objective
from cbsn.recipes import Recipe
from cbsn.training.optimizer import FIRST_SCALE, SkippingAdam, update_average, update_scale
from cbsn.training.step_random import StepRandom
from cbsn.value_range import value_range

Tensor = Any

_FEATURE_BYTES = 1 << 30  # of features that a CPU computes at a time
_PASSES = 2  # passes of the network with gradients in an objective: blind and non-blind
# First random draws of the augmentation, of patches held out, and of those that an objective fits
# weights to; objectives use those below.
_AUGMENTS, _HELD_OUT, _FITS = 500, 700, 900


class Trainer:
    """Holds everything that changes in a training, and updates it step by step.

    The optimizer is the paper's: Adam with β 0.9 and 0.999, and ε 1e-8. A step whose loss or
    gradients are not finite changes no weight. Nothing in a step waits for the host, so a GPU can
    queue the next steps while it computes one.

    Args:
        recipe: the recipe to train.
        objective: the objective to minimise; None for the recipe's.
        precision: Keras dtype policy of the network's layers. With "mixed_float16" the loss is
            scaled, so that small gradients are not lost. Steps that overflow halve the scale and
            are skipped.
        ema: decay < 1 of an exponential moving average of the weights, which then replaces the
            weights in `model`; 0 for none. The decay starts at 0.1 and rises during the first
            steps, so that averaging also works in short trainings.
        seed: seed of the initial weights and of all random numbers in a step; any int ≥ 0.
        accumulate: number of parts into which each device splits its share of the batch. Computing
            and adding up their gradients one by one gives the same step in less memory. 0 for one
            part on a GPU, and for parts of about 1 GiB of features on a CPU, which hardly gains
            from more. A step that runs out of memory is repeated in at least twice as many parts.
        xla: whether XLA compiles the step. This takes a minute or two at the first call, and makes
            steps faster on a GPU. None to compile if there is a GPU.
        strategy: a `tf.distribute` strategy; None for the current one.
        augmentation: turns a batch into the objective's input, on the device, such as
            `PhotoAugmentation`; None if the objective takes the batch itself.

    Raises:
        ConfigError: if the batch cannot be split evenly over the devices, `accumulate` does not
            divide a device's share, `ema` is out of range, or the objective lacks what it needs.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        objective: Objective | None = None,
        precision: str = "float32",
        ema: float = 0.0,
        seed: int = 0,
        accumulate: int = 0,
        xla: bool | None = None,
        strategy: tf.distribute.Strategy | None = None,
        augmentation: Callable[[Tensor, Any], Tensor] | None = None,
    ):
        set_up()
        self.recipe = recipe
        self.strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self.strategy.num_replicas_in_sync
        if recipe.batch_size % self._replicas:
            raise ConfigError(
                f"--batch_size is divided among {self._replicas} devices, so it must be a "
                f"multiple of {self._replicas}. Received: batch_size={recipe.batch_size}"
            )
        self._rows = recipe.batch_size // self._replicas
        if accumulate < 0 or (accumulate and self._rows % accumulate):
            raise ConfigError(
                f"--accumulate must divide the {self._rows} patches of a batch that each device "
                f"gets; 0 chooses automatically. Received: --accumulate {accumulate}"
            )
        if not 0 <= ema < 1:
            raise ConfigError(f"--ema must be 0 or above, and below 1. Received: {ema}")
        self._ema = ema
        self._seed = seed
        self._augmentation = augmentation
        self._normalization = recipe.build_normalization()
        self._objective = objective or recipe.build_objective()
        with self.strategy.scope(), _initial_weights_from(seed):
            self._objective.prepare()
            self.network = recipe.build_network(precision)
            self.average = recipe.build_network(precision) if ema else None
            self.optimizer = SkippingAdam(recipe.learning_rate, epsilon=1e-8, name="adam")
            self.optimizer.build(self.network.trainable_variables)
            self.step = tf.Variable(0, dtype=tf.int64, name="step")  # counts skipped ones too
            self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped")
            self.skipped_in_row = tf.Variable(0, dtype=tf.int64, name="skipped_in_row")
            self.rate_scale = tf.Variable(1.0, name="rate_scale")  # factor of the learning rate
            self.loss_scale = tf.Variable(FIRST_SCALE, name="loss_scale")  # for mixed_float16
        self._scaled = precision == "mixed_float16"
        self.accumulate = accumulate or self._choose_parts()
        if self.average is not None:
            self.average.set_weights(self.network.get_weights())
        self.xla = has_gpu() if xla is None else xla
        self._make_graph()

    @property
    def model(self) -> keras.Model:
        """The network to denoise with: the averaged one, if there is one."""
        return self.average if self.average is not None else self.network

    def initialize(self, weights: list[np.ndarray]) -> None:
        """Starts from these weights, in the order of `network.get_weights()`, not fresh ones."""
        self.network.set_weights(weights)
        if self.average is not None:
            self.average.set_weights(weights)

    def distribute(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """Splits this process' rows of each global batch over its devices."""
        shares = map(self._share, batches)
        if not has_gpu():
            return shares
        # Fetches one batch ahead, so that it is copied while the one before is computed on.
        return (share for share, _ in itertools.pairwise(itertools.chain(shares, [None])))

    def train_step(self, batch: Tensor, stop: Tensor = False) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            batch: uint8, uint16 or float in [0, 1], [N, P, P, SHOTS·C], or of a network in three
                dimensions [N, D, P, P, SHOTS·C] (or the input of the augmentation, if there is
                one); or an item of `distribute`.
            stop: boolean scalar, whether this process was asked to stop.

        Returns:
            float32 scalars, on the device: the terms of the loss (including `total`),
            `learning_rate`, and two flags, 1 or 0: `skipped`, whether the step changed nothing, and
            `stop`, whether any process was asked to stop.
        """
        while True:
            try:
                return self._graph(batch, stop)
            except (tf.errors.OpError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Nothing has changed yet: weights only change once all gradients are computed. The
                # smaller parts, used from now on, give the same result up to rounding.
                self._split_further(error)

    @property
    def rows_at_once(self) -> int:
        """How many patches a device computes at a time."""
        return self._rows // self.accumulate

    def loss(self, batch: Tensor, first: int, batch_size: int) -> Tensor:
        """Returns the loss of some patches, which changes nothing and is the same on every call.

        Args:
            batch: rows of a larger batch, see `train_step`.
            first: the first row's number in that.
            batch_size: the larger batch's number of rows.

        Returns:
            A float32 scalar, of the weights that the model denoises with, by the objective at the
            end of the training.
        """
        return self._loss(batch, tf.constant(first), batch_size)

    @property
    def milestones(self) -> tuple[int, ...]:
        """Numbers of steps after which weights are to be fitted."""
        return self._objective.milestones

    def fit(self, batches: Iterable[np.ndarray]) -> tuple[list[np.ndarray], str]:
        """Computes weights for `set_fitted` from whole batches; see `Objective.fit`."""
        rows = self.rows_at_once

        def parts() -> Iterator[tuple[Tensor, StepRandom]]:
            for number, batch in enumerate(batches):
                for first in range(0, len(batch), rows):
                    part = self._normalization.batch(unit(tf.constant(batch[first : first + rows])))
                    yield part, StepRandom(self._seed, number, len(batch), first, rows, _FITS)

        return self._objective.fit(self.model, parts())

    def set_fitted(self, values: list[np.ndarray]) -> None:
        """Sets the weights that are not trained by gradients, also of the averaged network."""
        for network in (self.network, self.average):
            if network is not None:
                for variable, value in zip(network.non_trainable_variables, values, strict=True):
                    variable.assign(value)

    def concrete_step(self, batch: Tensor) -> Any:
        """Returns the graph of a step for such batches, a `ConcreteFunction`."""
        return self._graph.get_concrete_function(batch)

    def _make_graph(self) -> None:
        # XLA cannot compile the exchange between devices, so then only the gradients are compiled.
        alone = self._replicas == 1
        self._compiled = self._loss_and_gradients
        if self.xla and not alone:
            self._compiled = tf.function(self._loss_and_gradients, jit_compile=True)
        compiled = True if self.xla and alone else None
        self._graph = tf.function(self._train_step, jit_compile=compiled)
        self._loss = tf.function(self._loss_of_model)

    def _choose_parts(self) -> int:
        if has_gpu():
            return 1
        # A pass keeps the output of each convolution, at every pixel, for its gradient. The others
        # of the weights are vectors.
        outputs = sum(v.shape[-1] for v in self.network.trainable_variables if v.ndim >= 4)
        value_bytes = tf.as_dtype(self.network.compute_dtype).size
        pixels = self.recipe.patch_depth * self.recipe.patch_size**2
        row_bytes = _PASSES * outputs * pixels * value_bytes
        fit = max(1, _FEATURE_BYTES // row_bytes)
        return next(n for n in self._divisors() if self._rows // n <= fit)

    def _divisors(self) -> Iterator[int]:
        """Returns the numbers of equal parts into which a device can split its share of a batch."""
        return (n for n in range(1, self._rows + 1) if self._rows % n == 0)

    def _split_further(self, error: Exception) -> None:
        finer = next((n for n in self._divisors() if n >= 2 * self.accumulate), None)
        smaller = "Give cbsn train a smaller --patch_size"
        if self.recipe.patch_depth > 1:
            smaller = "Give cbsn train a smaller --patch_size, --patch_depth"
        advice = (
            f"{smaller} or network, or --precision mixed_bfloat16; or check what else uses the "
            f"memory ({plain_reason(error)})"
        )
        if finer is None:
            size = size_text(self.recipe.patch_size, self.recipe.patch_depth)
            raise TrainingError(
                f"There is not enough memory for one patch of {size} at a time. {advice}."
            ) from error
        if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # The other workers are waiting for what this one should have sent.
            raise TrainingError(
                "This worker does not have enough memory. Start cbsn train on all workers with "
                f"--accumulate {finer}. {advice}."
            ) from error
        self.accumulate = finer
        self._make_graph()

    def _share(self, batch: Tensor) -> Any:
        """Puts a batch, or each device's share of it, on the device that computes on it."""
        if self._replicas == 1:
            return tf.identity(batch) if has_gpu() else batch
        devices = self.strategy.extended.worker_devices

        def part(context: tf.distribute.experimental.ValueContext) -> Tensor:
            replica = context.replica_id_in_sync_group
            first = replica * self._rows % batch.shape[0]
            with tf.device(devices[replica % len(devices)]):
                return tf.identity(batch[first : first + self._rows])

        # Not a distributed dataset of the strategy: it tunes buffers, and may take 10 s to end.
        return self.strategy.experimental_distribute_values_from_function(part)

    def _train_step(self, batch: Tensor, stop: Tensor = False) -> dict[str, Tensor]:
        learning_rate = self.recipe.learning_rate_at(self.step) * self.rate_scale
        self.optimizer.learning_rate = learning_rate
        terms, gradients, flags = self.strategy.run(self._gradients, args=(batch, stop))
        bad, stop = tf.unstack(self.strategy.reduce("SUM", flags, axis=None))
        # Decided for all devices together, outside of them, as no device can know alone. Values are
        # selected, without a branch, because the host would have to know which branch to take.
        good = bad == 0
        self.optimizer.good = good
        variables = self.network.trainable_variables
        self.strategy.run(lambda each: self.optimizer.apply(each, variables), args=(gradients,))
        self.optimizer.good = None
        if self.average is not None:
            update_average(self.average, self.network, self._ema, self.step, good, self.strategy)
        # Waits until `good` is known, or a step that runs out of memory would count.
        with tf.control_dependencies([good]):
            self.step.assign_add(1)
            skipped = tf.cast(~good, tf.int64)
            self.skipped.assign_add(skipped)
            self.skipped_in_row.assign((self.skipped_in_row + 1) * skipped)
            if self._scaled:
                update_scale(self.loss_scale, self.step, good)
        return {
            **{name: self.strategy.reduce("MEAN", term, axis=None) for name, term in terms.items()},
            "learning_rate": learning_rate,
            "skipped": tf.cast(skipped, tf.float32),
            "stop": tf.cast(stop > 0, tf.float32),
        }

    def _gradients(
        self, batch: Tensor, stop: Tensor = False
    ) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """Returns one replica's loss terms, its share of the gradients, and two flags.

        The flags are float32, 1 or 0: whether the loss or a gradient is not finite, and `stop`.
        """
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * batch.shape[0]
        terms, gradients = self._compiled(batch, tf.convert_to_tensor(first))
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (terms["total"], *gradients)]
        # Not integers, as TensorFlow would add those up on the host.
        flags = tf.cast(tf.stack([~tf.reduce_all(finite), tf.cast(stop, tf.bool)]), tf.float32)
        if self.recipe.clip_norm:
            gradients = self._clip(gradients)
        return terms, gradients, flags

    def _loss_and_gradients(
        self, batch: Tensor, first: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns loss terms and gradients of the global rows from `first` on, part by part."""
        rows, count = batch.shape[0], self.accumulate
        batch_size = rows * self._replicas
        if self._augmentation is not None:
            random = StepRandom(self._seed, self.step, batch_size, first, rows, _AUGMENTS)
            batch = self._augmentation(unit(batch), random)
        parts = tf.reshape(batch, (count, rows // count, *batch.shape[1:]))
        variables = [variable.value for variable in self.network.trainable_variables]

        def accumulate(part: Tensor, terms: dict, gradients: list) -> tuple[Tensor, dict, list]:
            new_terms, new_gradients = self._backward(
                parts[part], first + part * (rows // count), batch_size, variables
            )
            return (
                part + 1,
                {name: term + new_terms[name] / count for name, term in terms.items()},
                [sum_ + new / count for sum_, new in zip(gradients, new_gradients, strict=True)],
            )

        terms = {name: tf.zeros(()) for name in ("total", *self._objective.TERMS)}
        state = (0, terms, [tf.zeros(variable.shape) for variable in variables])
        if count == 1:
            return accumulate(*state)[1:]
        # One part after the other, or all would take memory at once.
        return tf.while_loop(
            lambda part, *_: part < count, accumulate, state, parallel_iterations=1
        )[1:]

    def _backward(
        self, batch: Tensor, first: Tensor, batch_size: int, variables: list[tf.Variable]
    ) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        """Returns loss terms and gradients of one part, the global rows from `first` on."""
        x = self._normalization.batch(unit(batch))
        random = StepRandom(self._seed, self.step, batch_size, first, batch.shape[0])
        with tf.GradientTape() as tape:
            terms = self._objective(self.network, x, self.step, random)
            # The optimizer adds up the gradients of the replicas.
            loss = terms["total"] / self._replicas
            if self._scaled:
                loss *= self.loss_scale
        gradients = tape.gradient(loss, variables)
        if self._scaled:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        return terms, gradients

    def _loss_of_model(self, batch: Tensor, first: Tensor, batch_size: int) -> Tensor:
        x = self._normalization.batch(unit(batch))
        random = StepRandom(self._seed, 0, batch_size, first, batch.shape[0], _HELD_OUT)
        last = tf.constant(self.recipe.max_steps, tf.int64)
        return self._objective.held_out(self.model, x, last, random)

    def _clip(self, gradients: list[Tensor]) -> list[Tensor]:
        """Scales this replica's share so that the sum of all shares is at most `clip_norm` long."""
        total = gradients
        if self._replicas > 1:
            total = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        longest = self.recipe.clip_norm
        scale = longest / tf.maximum(tf.linalg.global_norm(total), longest)
        return [gradient * scale for gradient in gradients]


@contextlib.contextmanager
def _initial_weights_from(seed: int) -> Iterator[None]:
    """Seeds Keras' initializers, which draw their seeds from Python's `random`."""
    state = python_random.getstate()
    python_random.seed(seed)
    try:
        yield
    finally:
        python_random.setstate(state)


def unit(batch: Tensor) -> Tensor:
    """Returns a batch as float32 in [0, 1]."""
    return tf.cast(batch, tf.float32) / value_range(batch.dtype.as_numpy_dtype)
