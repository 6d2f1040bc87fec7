"""The training step: our network and the stock one, in float32 and bfloat16."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Sample, Side, compare, timed
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings, Size
from benchmarks.stock import StockNetwork
from cbsn.errors import CbsnError
from cbsn.networks import ConditionalBlindSpotNetwork
from cbsn.recipes import Recipe, customised
from cbsn.training.trainer import Trainer

TITLE = "Training step"
COLUMNS = (
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)

OURS, STOCK = ConditionalBlindSpotNetwork.__name__, StockNetwork.__name__
SIDES = {
    "float32": (OURS, "float32"),
    "bfloat16": (OURS, "mixed_bfloat16"),
    "stock float32": (STOCK, "float32"),
    "stock bfloat16": (STOCK, "mixed_bfloat16"),
}
"""Network and precision by the name of the side."""
BASE = "stock float32"


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A training step: the network's name in recipes, its size and precision, and the batch."""

    network: str
    precision: str
    filters: int
    num_modules: int
    batch_size: int
    patch_size: int

    def recipe(self) -> Recipe:
        """Returns the paper's recipe for these sizes."""
        return customised(
            "cbsn",
            network=self.network,
            filters=self.filters,
            num_modules=self.num_modules,
            batch_size=self.batch_size,
            patch_size=self.patch_size,
        )

    def trainer(self) -> Trainer:
        """Returns a trainer that has not done any step."""
        return Trainer(self.recipe(), precision=self.precision)

    def batch(self) -> tf.Tensor:
        """Returns a batch of random noise."""
        shape = (self.batch_size, self.patch_size, self.patch_size, 3)
        return tf.constant(np.random.default_rng(0).integers(0, 256, shape, "uint8"))


def specs(settings: Settings) -> Iterator[tuple[str, dict[str, StepSpec]]]:
    """Yields each case: its name, and the steps to compare, by the names of their sides."""
    for size in settings.sizes:
        for batch in settings.batches:
            name = f"{describe(size)}, batch {batch}"
            yield (
                name,
                {
                    side: StepSpec(
                        *kind, size.filters, size.num_modules, batch, settings.patch_size
                    )
                    for side, kind in SIDES.items()
                },
            )


def describe(size: Size) -> str:
    """Returns the name of a size in the tables."""
    return f"{size.name} ({size.filters}, {size.num_modules})"


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns the measurement of a step; `spec` holds the fields of a `StepSpec`."""
    spec = StepSpec(**spec)
    return timed(step_of(spec.trainer(), spec.batch()))


def step_of(trainer: Trainer, batch: tf.Tensor) -> Callable[[], None]:
    """Returns a function that does one step and waits for its end.

    It raises a CbsnError if the step was skipped, as that is less work than a complete step.
    """

    def step() -> None:
        if float(trainer.train_step(batch)["skipped"]):
            raise CbsnError("The step's gradients are not finite, so its time says nothing.")

    return step


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for case, steps in specs(settings):
        names = settings.select(steps)
        base = BASE if BASE in names else names[0]
        sides = []
        for name in names:
            fields = dataclasses.asdict(steps[name])
            facts = measure_memory("step", fields) if settings.memory else {}
            sides.append(Side(name, make(fields), base=base, facts=facts))
        yield compare(case, sides, settings.repeats)
