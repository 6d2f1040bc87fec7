"""The processes that train one network together."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from cbsn.cluster import Cluster
from cbsn.errors import ConfigError, TrainingError, plain_reason

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """This process among those that train together: usually alone, else as `TF_CONFIG` says.

    The first one is the chief: it prepares pictures and writes the run's files. The others read
    them, so the folders must be shared.

    Args:
        strategy: of `tf.distribute`, as `cbsn.devices.make_strategy` makes it for `cluster`.
        cluster: the processes; None for this one alone.

    Attributes:
        strategy: as given.
        count: int ≥ 1, number of processes.
        index: int, number of this one.
        is_chief: whether it is the first.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None):
        self.strategy = strategy
        self.count = len(cluster.addresses) if cluster else 1
        self.index = cluster.index if cluster else 0
        self.is_chief = self.index == 0
        # A graph, as TensorFlow warns of the cost of doing it without.
        self._add = tf.function(
            lambda value: strategy.reduce("SUM", strategy.run(lambda: value), axis=None)
        )

    def wait(self) -> None:
        """Returns when all workers have called it."""
        self._sum(0)

    def any(self, value: bool) -> bool:
        """Returns whether it is true of any worker, when all have called it."""
        return self._sum(int(value)) > 0

    def agree(self, value: int, what: str) -> None:
        """Checks that all workers have the same value.

        Raises:
            ConfigError: if they have not.
        """
        if (total := self._sum(value)) != value * self.count:
            raise ConfigError(
                f"The {self.count} workers do not have the same {what}: number {self.index} has "
                f"{value}, all of them together {total}. Give all of them the same flags; "
                "--checkpoints and --dataset must be folders that they share."
            )

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs the block on the chief, and then on the others."""
        if not self.is_chief:
            self.wait()
        yield
        if self.is_chief:
            self.wait()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Turns TensorFlow's errors about lost workers into a `TrainingError`."""
        try:
            yield
        except _LOST as error:
            if self.count == 1:
                raise
            raise TrainingError(
                f"A worker is gone, and number {self.index} cannot go on without it. See what the "
                "others said last, and start all of them again: they go on from the newest "
                f"checkpoint. (TensorFlow: {_last_part(error)})"
            ) from error

    def _sum(self, value: int) -> int:
        if self.count == 1:
            return value
        with self.watch():
            total = int(self._add(tf.constant(value, tf.int64)))
        return total * self.count // self.strategy.num_replicas_in_sync


def _last_part(error: tf.errors.OpError) -> str:
    """What is gone; before it stands where in the graph that was noticed."""
    reason = plain_reason(error)
    return reason[max(0, reason.find("Collective ops is aborted")) :]
