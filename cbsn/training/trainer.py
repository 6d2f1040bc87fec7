"""The training step: a recipe's loss, applied under `tf.distribute`."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.recipes import Recipe
from cbsn.training.step_random import StepRandom
from cbsn.value_range import value_range

Tensor = Any


class Trainer:
    """Holds all that changes in a training, and changes it step by step.

    The optimizer is the paper's: Adam with β 0.9 and 0.999, and ε 1e-8. A step whose loss or
    gradients are not finite changes no weight; it is counted in `skipped`.

    Args:
        recipe: what to train and how.
        precision: Keras dtype policy of the network's layers, "float32" or "mixed_bfloat16".
            Weights, normalisation, last layer and loss are float32 in any case.
        ema: float in [0, 1): decay of an exponential moving average of the weights, which then
            takes the weights' place in `model`; 0 for none. The decay rises from 0.1 with the
            first steps, so that short trainings are averaged, too.
        seed: int ≥ 0, seed of the initial weights and of every random number in a step.
        strategy: of `tf.distribute`; the current one by default.

    Attributes:
        network: the Keras model that is trained.
        average: a second one with the averaged weights, or None.
        step: int64 variable, number of steps done, skipped ones included.
        skipped: int64 variable, number of steps that changed nothing.

    Raises:
        ConfigError: if the batch cannot be shared out evenly, or `ema` is out of range.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        precision: str = "float32",
        ema: float = 0.0,
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.recipe = recipe
        self.strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self.strategy.num_replicas_in_sync
        if recipe.batch_size % self._replicas:
            raise ConfigError(
                f"--batchsize is shared out over {self._replicas} devices, so it must be a "
                f"multiple of {self._replicas}. Received: batch_size={recipe.batch_size}"
            )
        if not 0 <= ema < 1:
            raise ConfigError(f"--ema must be in [0, 1). Received: ema={ema}")
        self._ema = ema
        self._seed = seed
        self._normalization = recipe.build_normalization()
        self._objective = recipe.build_objective()
        keras.utils.set_random_seed(seed)
        with self.strategy.scope():
            self.network = recipe.build_network(precision)
            self.average = recipe.build_network(precision) if ema else None
            self.optimizer = keras.optimizers.Adam(recipe.learning_rate, epsilon=1e-8)
            self.optimizer.build(self.network.trainable_variables)
            self.step = tf.Variable(0, dtype=tf.int64, name="step")
            self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped")
        if self.average is not None:
            self.average.set_weights(self.network.get_weights())
        self.train_step: Callable[[Tensor], dict[str, Tensor]] = tf.function(self._train_step)
        """Takes one step on a batch: uint8, uint16 or float in [0, 1], [N, P, P, C].

        Returns float32 scalars: the terms of the loss (`total` among them), `learning_rate`,
        and `skipped`, 1 if the step changed nothing.
        """

    @property
    def model(self) -> keras.Model:
        """The network to denoise with: the averaged one, where there is one."""
        return self.average if self.average is not None else self.network

    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """Shares the batches of a dataset out over the devices."""
        if self._replicas == 1:
            return dataset
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return self.strategy.experimental_distribute_dataset(dataset.with_options(options))

    def _train_step(self, batch: Tensor) -> dict[str, Tensor]:
        learning_rate = self.recipe.learning_rate_at(self.step)
        self.optimizer.learning_rate = learning_rate
        terms, gradients, bad = self.strategy.run(self._gradients, args=(batch,))
        bad = self.strategy.reduce("SUM", bad, axis=None)
        # Decided for all devices together, and outside of them: a device cannot know alone.
        if bad == 0:
            self.strategy.run(self._apply, args=(gradients,))
            self._update_average()
        else:
            self.skipped.assign_add(1)
        self.step.assign_add(1)
        metrics = {name: self.strategy.reduce("MEAN", t, axis=None) for name, t in terms.items()}
        skipped = tf.cast(bad > 0, tf.float32)
        return {**metrics, "learning_rate": learning_rate, "skipped": skipped}

    def _gradients(self, batch: Tensor) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """On one replica: the loss terms, its share of the gradients, and 1 if not finite."""
        x = tf.cast(batch, tf.float32) / value_range(batch.dtype.as_numpy_dtype)
        x = self._normalization.batch(x)
        with tf.GradientTape() as tape:
            terms = self._objective(self.network, x, self.step, self._random(x.shape[0]))
            # The optimizer adds up what the replicas bring.
            loss = terms["total"] / self._replicas
        gradients = tape.gradient(loss, [v.value for v in self.network.trainable_variables])
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (loss, *gradients)]
        return terms, gradients, tf.cast(~tf.reduce_all(finite), tf.int32)

    def _random(self, rows: int) -> StepRandom:
        """The random numbers for this replica's rows of the batch."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return StepRandom(self._seed, self.step, rows * self._replicas, replica * rows)

    def _apply(self, gradients: list[Tensor]) -> None:
        self.optimizer.apply(gradients, self.network.trainable_variables)

    def _update_average(self) -> None:
        if self.average is None:
            return
        step = tf.cast(self.step, tf.float32)
        share = 1.0 - tf.minimum(self._ema, (1.0 + step) / (10.0 + step))

        def approach(average: tf.Variable, weight: tf.Variable) -> None:
            average.assign_add(share * (weight - average))

        pairs = zip(self.average.trainable_variables, self.network.trainable_variables, strict=True)
        for average, weight in pairs:
            self.strategy.extended.update(
                average.value, approach, args=(weight.value,), group=False
            )
