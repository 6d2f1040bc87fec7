"""The training step: a recipe's loss, applied under `tf.distribute`."""

import contextlib
import itertools
import random as python_random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cbsn.devices import has_gpu, is_out_of_memory, set_up
from cbsn.errors import ConfigError, TrainingError, plain_reason
from cbsn.objectives.objective import Objective
from cbsn.recipes import Recipe
from cbsn.training.optimizer import FIRST_SCALE, SkippingAdam, update_average, update_scale
from cbsn.training.step_random import StepRandom
from cbsn.value_range import value_range

Tensor = Any

_FEATURE_BYTES = 1 << 30  # what a CPU takes at a time
_PASSES = 2  # how often an objective runs the network with gradients: blind and not
_AUGMENTS = 500  # first random draw of augmentation; objectives have those before


class Trainer:
    """Holds all that changes in a training, and changes it step by step.

    The optimizer is the paper's: Adam with β 0.9 and 0.999, and ε 1e-8. A step whose loss or
    gradients are not finite changes no weight. Nothing in a step waits for the host, so that a GPU
    is given the next steps while it computes one.

    Args:
        recipe: what to train and how.
        objective: what is minimised; None for the recipe's.
        precision: Keras dtype policy of the network's layers. With "mixed_float16" the loss is
            scaled, so that small gradients are not lost: steps that overflow halve the scale, and
            are skipped.
        ema: decay < 1 of an exponential moving average of the weights, which then takes the
            weights' place in `model`; 0 for none. The decay rises from 0.1 with the first steps, so
            that short trainings are averaged, too.
        seed: of the initial weights and of every random number in a step; any int ≥ 0.
        accumulate: parts of each device's share of the batch whose gradients are taken one after
            the other, and summed up: the same step in less memory. 0 for all at once on a GPU, and
            on a CPU, which hardly gains by more, for parts of about 1 GiB of features. A step that
            runs out of memory is repeated in at least twice as many parts.
        xla: whether XLA compiles the step, which takes a minute or two at its first call and makes
            it faster on a GPU; None for where there is one.
        strategy: of `tf.distribute`; None for the current one.
        augmentation: makes what the objective takes out of a batch, on the device, as
            `PhotoAugmentation` does; None where the objective takes the batch.

    Raises:
        ConfigError: the batch cannot be shared out evenly, `accumulate` does not divide a device's
            share of it, `ema` is out of range, or the objective lacks what it needs.
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
                f"--batchsize is shared out over {self._replicas} devices, so it must be a "
                f"multiple of {self._replicas}. Received: batch_size={recipe.batch_size}"
            )
        self._rows = recipe.batch_size // self._replicas
        if accumulate < 0 or (accumulate and self._rows % accumulate):
            raise ConfigError(
                f"--accumulate must divide the {self._rows} patches that a device gets of a batch; "
                f"0 leaves it to the program. Received: --accumulate {accumulate}"
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
            self.step = tf.Variable(0, dtype=tf.int64, name="step")  # those that are skipped, too
            self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped")
            self.skipped_in_row = tf.Variable(0, dtype=tf.int64, name="skipped_in_row")
            self.rate_scale = tf.Variable(1.0, name="rate_scale")  # of the recipe's learning rate
            self.loss_scale = tf.Variable(FIRST_SCALE, name="loss_scale")  # of "mixed_float16"
        self._scaled = precision == "mixed_float16"
        self.accumulate = accumulate or self._choose_parts()
        if self.average is not None:
            self.average.set_weights(self.network.get_weights())
        self.xla = has_gpu() if xla is None else xla
        self._make_graph()

    @property
    def model(self) -> keras.Model:
        """The network to denoise with: the averaged one, where there is one."""
        return self.average if self.average is not None else self.network

    def initialize(self, weights: list[np.ndarray]) -> None:
        """Starts with these weights, as `network.get_weights()` has them, instead of fresh ones."""
        self.network.set_weights(weights)
        if self.average is not None:
            self.average.set_weights(weights)

    def distribute(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """Shares out this process' rows of the global batches over its devices."""
        shares = map(self._share, batches)
        if not has_gpu():
            return shares
        # Asks for each while the one before it is computed on: it is copied meanwhile.
        return (share for share, _ in itertools.pairwise(itertools.chain(shares, [None])))

    def train_step(self, batch: Tensor, stop: Tensor = False) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            batch: uint8, uint16 or float in [0, 1], [N, P, P, SHOTS·C] (with an augmentation what
                that takes), or what iterating over `distribute` gives.
            stop: boolean scalar, whether this process was asked to stop.

        Returns:
            float32 scalars, on the device: the terms of the loss (`total` among them),
            `learning_rate`, and as 1 or 0 `skipped`, whether the step changed nothing, and `stop`,
            whether any process was asked to stop.
        """
        while True:
            try:
                return self._graph(batch, stop)
            except (tf.errors.OpError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Nothing has changed: weights do not before all gradients are there. In smaller
                # parts, as from now on, the result is the same but for rounding.
                self._split_further(error)

    def concrete_step(self, batch: Tensor) -> Any:
        """Returns the graph of a step, a `ConcreteFunction` of a batch like this one."""
        return self._graph.get_concrete_function(batch)

    def _make_graph(self) -> None:
        # What several devices exchange cannot be compiled; their gradients are, then.
        alone = self._replicas == 1
        self._compiled = self._loss_and_gradients
        if self.xla and not alone:
            self._compiled = tf.function(self._loss_and_gradients, jit_compile=True)
        compiled = True if self.xla and alone else None
        self._graph = tf.function(self._train_step, jit_compile=compiled)

    def _choose_parts(self) -> int:
        if has_gpu():
            return 1
        # What a pass keeps for its gradient: the output of each convolution, at every pixel.
        outputs = sum(v.shape[-1] for v in self.network.trainable_variables if v.ndim == 4)
        value_bytes = tf.as_dtype(self.network.compute_dtype).size
        row_bytes = _PASSES * outputs * self.recipe.patch_size**2 * value_bytes
        fit = max(1, _FEATURE_BYTES // row_bytes)
        return next(n for n in self._divisors() if self._rows // n <= fit)

    def _divisors(self) -> Iterator[int]:
        """Into how many equal parts a device's share of a batch can be split."""
        return (n for n in range(1, self._rows + 1) if self._rows % n == 0)

    def _split_further(self, error: Exception) -> None:
        finer = next((n for n in self._divisors() if n >= 2 * self.accumulate), None)
        advice = (
            "Give train.py a smaller --patchsize or network, or --precision mixed_bfloat16; or see "
            f"what else is using the memory ({plain_reason(error)})"
        )
        if finer is None:
            raise TrainingError(
                f"There is not enough memory for one patch of {self.recipe.patch_size} pixels at a "
                f"time. {advice}."
            ) from error
        if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # The others wait for what this one was to send.
            raise TrainingError(
                "This worker has not enough memory. Start train.py on all of them with "
                f"--accumulate {finer}. {advice}."
            ) from error
        self.accumulate = finer
        self._make_graph()

    def _share(self, batch: Tensor) -> Any:
        """Puts a batch, or the parts of it, where it is computed on."""
        if self._replicas == 1:
            return tf.identity(batch) if has_gpu() else batch
        devices = self.strategy.extended.worker_devices

        def part(context: tf.distribute.experimental.ValueContext) -> Tensor:
            replica = context.replica_id_in_sync_group
            first = replica * self._rows % batch.shape[0]
            with tf.device(devices[replica % len(devices)]):
                return tf.identity(batch[first : first + self._rows])

        # Not one of the strategy's own datasets, which tune buffers: to end one may take 10 s.
        return self.strategy.experimental_distribute_values_from_function(part)

    def _train_step(self, batch: Tensor, stop: Tensor = False) -> dict[str, Tensor]:
        learning_rate = self.recipe.learning_rate_at(self.step) * self.rate_scale
        self.optimizer.learning_rate = learning_rate
        terms, gradients, flags = self.strategy.run(self._gradients, args=(batch, stop))
        bad, stop = tf.unstack(self.strategy.reduce("SUM", flags, axis=None))
        # Decided for all devices together, and outside of them: a device cannot know alone. And
        # selected, not branched on, as the host would have to know which branch to go on with.
        good = bad == 0
        self.optimizer.good = good
        variables = self.network.trainable_variables
        self.strategy.run(lambda each: self.optimizer.apply(each, variables), args=(gradients,))
        self.optimizer.good = None
        if self.average is not None:
            update_average(self.average, self.network, self._ema, self.step, good, self.strategy)
        # Not before it is known, or a step that runs out of memory would count.
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
        """On one replica: the loss terms, its share of the gradients, and two flags.

        The flags are float32, 1 or 0: whether loss or gradients are not finite, and `stop`.
        """
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * batch.shape[0]
        terms, gradients = self._compiled(batch, tf.convert_to_tensor(first))
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (terms["total"], *gradients)]
        # Not integers, which TensorFlow adds up on the host.
        flags = tf.cast(tf.stack([~tf.reduce_all(finite), tf.cast(stop, tf.bool)]), tf.float32)
        if self.recipe.clip_norm:
            gradients = self._clip(gradients)
        return terms, gradients, flags

    def _loss_and_gradients(
        self, batch: Tensor, first: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Of the rows of the global batch from `first` on; part by part."""
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
        # One after the other, or the memory of all would be taken at once.
        return tf.while_loop(
            lambda part, *_: part < count, accumulate, state, parallel_iterations=1
        )[1:]

    def _backward(
        self, batch: Tensor, first: Tensor, batch_size: int, variables: list[tf.Variable]
    ) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        """The loss terms and gradients of some rows, from `first` on, of the global batch."""
        x = self._normalization.batch(unit(batch))
        random = StepRandom(self._seed, self.step, batch_size, first, batch.shape[0])
        with tf.GradientTape() as tape:
            terms = self._objective(self.network, x, self.step, random)
            # The optimizer adds up what the replicas bring.
            loss = terms["total"] / self._replicas
            if self._scaled:
                loss *= self.loss_scale
        gradients = tape.gradient(loss, variables)
        if self._scaled:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        return terms, gradients

    def _clip(self, gradients: list[Tensor]) -> list[Tensor]:
        """Scales this replica's share, so that the sum of all shares is no longer than allowed."""
        total = gradients
        if self._replicas > 1:
            total = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        longest = self.recipe.clip_norm
        scale = longest / tf.maximum(tf.linalg.global_norm(total), longest)
        return [gradient * scale for gradient in gradients]


@contextlib.contextmanager
def _initial_weights_from(seed: int) -> Iterator[None]:
    """Has Keras' initializers, which draw their seeds from Python's `random`, begin at a seed."""
    state = python_random.getstate()
    python_random.seed(seed)
    try:
        yield
    finally:
        python_random.setstate(state)


def unit(batch: Tensor) -> Tensor:
    """Values in [0, 1], float32."""
    return tf.cast(batch, tf.float32) / value_range(batch.dtype.as_numpy_dtype)
