"""The machines that train together, as `TF_CONFIG` lists them."""

import dataclasses
import json
import os
from collections.abc import Mapping

from cbsn.errors import ConfigError

VARIABLE = "TF_CONFIG"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes that train one network together, on one machine or on several.

    Args:
        addresses: `HOST:PORT` of each, the chief first.
        index: int, which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Cluster | None":
        """Reads the environment variable `TF_CONFIG`, which TensorFlow reads as well.

        Returns:
            The cluster, or None if the variable is not set or lists this process alone.

        Raises:
            ConfigError: if it is not a list of workers, or this process is none of them.
        """
        text = environment.get(VARIABLE, "").strip()
        if not text:
            return None
        try:
            config = json.loads(text)
            jobs = {job: list(addresses) for job, addresses in config["cluster"].items()}
            task, number = config["task"]["type"], int(config["task"]["index"])
            # Some clouds call the first worker the chief.
            ranked = [
                (job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, ())))
            ]
            addresses = tuple(str(jobs[job][i]) for job, i in ranked)
            if not jobs.keys() <= {"chief", "worker"} or len(jobs.get("chief", ())) > 1:
                raise ValueError("there may be one chief, workers, and nothing else")
            if (task, number) not in ranked:
                raise ValueError(f"there is no {task} {number}")
            if not all(address.rpartition(":")[2].isdigit() for address in addresses):
                raise ValueError("every address needs a port")
            if len(set(addresses)) < len(addresses):
                raise ValueError("an address is there twice")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            example = cls(("10.0.0.1:12345", "10.0.0.2:12345"), 0).to_json()
            raise ConfigError(
                f"{VARIABLE} must list the workers, and say which this one is "
                f"({type(error).__name__}: {error}), such as {VARIABLE}='{example}'; without it "
                "this machine trains alone. "
                f"Received: {VARIABLE}={text!r}"
            ) from error
        return cls(addresses, ranked.index((task, number))) if len(addresses) > 1 else None

    def to_json(self) -> str:
        """Returns what `TF_CONFIG` is to be for this process."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})
