"""Trains one network on several processes or several GPUs."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from cbsn.devices import set_up
from cbsn.errors import ConfigError, TrainingError, plain_reason
from cbsn.progress import say

VARIABLE = "TF_CONFIG"

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes that train one network together, on one machine or on several."""

    addresses: tuple[str, ...]  # HOST:PORT of each, the chief first
    index: int  # of this process in `addresses`

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Cluster | None":
        """Reads `TF_CONFIG` as TensorFlow does; None if it is unset or lists only one process."""
        text = environment.get(VARIABLE, "").strip()
        if not text:
            return None
        try:
            config = json.loads(text)
            jobs = {job: list(addresses) for job, addresses in config["cluster"].items()}
            task, number = config["task"]["type"], int(config["task"]["index"])
            names = ("chief", "worker")  # some clouds call the first worker the chief
            ranked = [(job, i) for job in names for i in range(len(jobs.get(job, ())))]
            addresses = tuple(str(jobs[job][i]) for job, i in ranked)
            if not jobs.keys() <= {*names} or len(jobs.get("chief", ())) > 1:
                raise ValueError("only one chief and workers are allowed")
            if (task, number) not in ranked:
                raise ValueError(f"there is no {task} {number}")
            if not all(address.rpartition(":")[2].isdigit() for address in addresses):
                raise ValueError("every address needs a port")
            if len(set(addresses)) < len(addresses):
                raise ValueError("an address is listed twice")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            example = cls(("10.0.0.1:12345", "10.0.0.2:12345"), 0).to_json()
            raise ConfigError(
                f"{VARIABLE} must list the workers and say which one this is "
                f"({type(error).__name__}: {error}), such as {VARIABLE}='{example}'; without it "
                f"this machine trains alone. Received: {VARIABLE}={text!r}"
            ) from error
        return cls(addresses, ranked.index((task, number))) if len(addresses) > 1 else None

    def to_json(self) -> str:
        """Returns the value of `TF_CONFIG` for this process."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})


def make_strategy(cluster: Cluster | None = None, cpu_devices: int = 1) -> tf.distribute.Strategy:
    """Sets up the visible devices and returns their strategy. Call it before anything runs.

    It waits until all processes of the cluster have called it. Without GPUs, the CPU is split into
    `cpu_devices` logical devices.
    """
    set_up()
    gpus = tf.config.get_visible_devices("GPU")
    if cpu_devices < 1 or (cpu_devices > 1 and (gpus or cluster)):
        raise ConfigError(
            "--cpu_devices must be at least 1, and 1 with GPUs or several workers. "
            f"Received: --cpu_devices {cpu_devices}, {len(gpus)} GPUs, "
            f"{len(cluster.addresses) if cluster else 1} workers"
        )
    if cluster:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise ConfigError(
                f"Worker {cluster.index} cannot join at {cluster.addresses[cluster.index]}: "
                f"{plain_reason(error)}. Check the addresses in TF_CONFIG, and that this one is "
                "free."
            ) from error
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if cpu_devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
        tf.config.set_logical_device_configuration(cpu, parts)
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])
    return tf.distribute.get_strategy()


class Workers:
    """The processes that train together: usually only this one, else those that `TF_CONFIG` lists.

    The first process is the chief: it prepares pictures and writes the run's files. The others
    read these files, so the folders must be shared.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None):
        self.strategy = strategy
        self.count = len(cluster.addresses) if cluster else 1
        self.index = cluster.index if cluster else 0
        self.is_chief = self.index == 0
        # A graph, because TensorFlow warns of the cost of running this eagerly.
        self._add = tf.function(
            lambda value: strategy.reduce("SUM", strategy.run(lambda: value), axis=None)
        )

    @classmethod
    def join(cls, cpu_devices: int = 1) -> "Workers":
        """Sets up the devices and waits for all processes of `TF_CONFIG`; see `make_strategy`."""
        cluster = Cluster.read()
        if cluster:
            say(f"Worker {cluster.index} is waiting for all of {cluster.addresses}.")
        return cls(make_strategy(cluster, cpu_devices), cluster)

    def any(self, value: bool) -> bool:
        """Waits until all workers have called it; returns whether any passed True."""
        return self._sum(int(value)) > 0

    def agree(self, value: int, what: str) -> None:
        """Raises a `ConfigError` unless all workers have the same value."""
        if (total := self._sum(value)) != value * self.count:
            raise ConfigError(
                f"The {self.count} workers do not have the same {what}: number {self.index} has "
                f"{value}, all of them together {total}. Give all of them the same flags; "
                "--checkpoints and --input must be folders that all of them share."
            )

    def of_chief(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the chief's float32 arrays on all workers, which have some of the same shapes."""
        if self.count == 1:
            return values
        copies = self.strategy.num_replicas_in_sync // self.count
        shares = [value * np.float32(self.is_chief) for value in values]
        with self.watch():
            return [self._add(tf.constant(share)).numpy() / copies for share in shares]

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs the block on the chief first, then on the other workers."""
        if not self.is_chief:
            self._sum(0)  # returns when all have called it
        yield
        if self.is_chief:
            self._sum(0)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Turns TensorFlow's errors about lost workers into a `TrainingError`."""
        try:
            yield
        except _LOST as error:
            if self.count == 1:
                raise
            reason = plain_reason(error)
            # Cuts the text before that, which names the place in the graph.
            reason = reason[max(0, reason.find("Collective ops is aborted")) :]
            raise TrainingError(
                f"A worker is gone, and number {self.index} cannot continue without it. See the "
                "last lines of the others, then start all of them again: they continue from the "
                f"newest checkpoint. (TensorFlow: {reason})"
            ) from error

    def _sum(self, value: int) -> int:
        if self.count == 1:
            return value
        with self.watch():
            total = int(self._add(tf.constant(value, tf.int64)))
        return total * self.count // self.strategy.num_replicas_in_sync
