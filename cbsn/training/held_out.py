"""The loss on patches of stacks that are held out, as there are no clean ones to compare with."""

import zlib

import numpy as np
import tensorflow as tf

from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import Patches
from cbsn.training.trainer import Trainer

_PATCHES = 64  # at most


class HeldOutLoss:
    """Computes the loss of the same patches with the same random numbers each time.

    The patches are crops at random places in random orientations, as in the training. The weights
    of the loss' terms are those at the end of the training, so that losses can be compared.

    Args:
        trainer: the training; of averaged weights, if there are any, the loss is computed.
        held_out: the patches, of which up to 64 are taken.
        seed: int ≥ 0, for which ones.
        skip_bad_records: whether damaged records are skipped.

    Raises:
        ConfigError: if the patches do not fit the recipe.
    """

    def __init__(
        self, trainer: Trainer, held_out: Patches, seed: int, *, skip_bad_records: bool = False
    ):
        recipe = trainer.recipe
        self._trainer = trainer
        count = min(_PATCHES, len(held_out))
        self._rows = min(trainer.rows_at_once, count)
        self.patches = count - count % self._rows  # all parts are of one size, for one graph
        self._pipeline = PatchPipeline(
            held_out,
            recipe.patch_size,
            self.patches,
            seed,
            skip_bad_records=skip_bad_records,
            channels=recipe.network_config["channels"],
            shots=recipe.build_objective().SHOTS,
            patch_depth=recipe.patch_depth,
            orientations=trainer.network.orientations,
            flips_z=trainer.network.flips_z,
        )

    def checksum(self) -> int:
        """Returns a checksum of the patches. Raises DataError if a record is damaged."""
        return zlib.crc32(self._pipeline.batch(0).tobytes())

    def __call__(self) -> float:
        """Returns the loss. Raises DataError if a record is damaged."""
        # Read anew, as it is needed seldom, and memory may be.
        batch = self._pipeline.batch(0)
        losses = [
            self._trainer.loss(tf.constant(batch[first : first + self._rows]), first, self.patches)
            for first in range(0, self.patches, self._rows)
        ]
        return float(np.mean([float(loss) for loss in losses]))
