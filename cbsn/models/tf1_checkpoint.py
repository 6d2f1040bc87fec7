"""Reading the checkpoints that the authors' TensorFlow 1.15 code writes.

The numbers of channels and modules are read from the checkpoint itself.
"""

import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from cbsn.errors import ModelError, plain_reason
from cbsn.networks.denoising_network import DenoisingNetwork

_SCOPE = "DBSN"


def variable_names(num_modules: int) -> list[tuple[str, str]]:
    """Pairs weights' names in the checkpoint with their paths in the network, in creation order.

    For example ("DBSN/B1/conv1/W1", "branch1/masked/kernel"); paths omit the network's own name.
    """
    layers = [("conv0", "head")]
    layers += [
        (f"B{branch}/{theirs}", f"branch{branch}/{ours}")
        for branch in (1, 2)
        for theirs, ours in (("conv1", "masked"), ("conv2", "pointwise1"), ("conv3", "pointwise2"))
    ]
    layers += [
        (f"B{branch}/DCM{module}/{theirs}", f"branch{branch}/module{module}/{ours}")
        for module in range(num_modules)
        for branch in (1, 2)
        for theirs, ours in (("conv1", "spatial"), ("conv2", "pointwise"))
    ]
    layers += [(f"B{branch}/conv4", f"branch{branch}/pointwise3") for branch in (1, 2)]
    layers += [(f"conv{i}", f"tail{i}") for i in range(1, 5)]

    names = []
    for theirs, ours in layers:
        kernel, bias = ("W1", "b1") if ours.endswith("masked") else ("kernel", "bias")
        names.append((f"{_SCOPE}/{theirs}/{kernel}", f"{ours}/kernel"))
        names.append((f"{_SCOPE}/{theirs}/{bias}", f"{ours}/bias"))
    return names


class TF1Checkpoint:
    """An original C-BSN checkpoint on disk, given by its prefix, the path without `.index`.

    Its network has `filters` channels, and `num_modules` dilated convolution modules per branch.
    """

    def __init__(self, prefix: str | Path):
        self.prefix = str(prefix)
        try:
            self.prefix.encode()
        except UnicodeEncodeError as error:
            raise ModelError(
                f"{self.prefix}: TensorFlow cannot open a path that is not UTF-8: rename it."
            ) from error
        try:
            self._reader = tf.train.load_checkpoint(self.prefix)
            shapes = self._shapes = self._reader.get_variable_to_shape_map()
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes make TensorFlow raise almost anything
            raise self._unreadable(error) from error
        head = shapes.get(f"{_SCOPE}/conv0/kernel")
        if head is None or len(head) != 4:
            raise ModelError(
                f"{self.prefix}: this checkpoint has no variable {_SCOPE}/conv0/kernel, so it is "
                "not one of the original C-BSN code. Received variables: "
                + ", ".join(name[:100] for name in sorted(shapes)[:5])
            )
        self.filters = head[-1]
        modules = {int(m[1]) for m in (re.search(r"/B1/DCM(\d+)/", name) for name in shapes) if m}
        self.num_modules = len(modules)

    def load_into(self, network: DenoisingNetwork) -> None:
        """Copies the weights into a `ConditionalBlindSpotNetwork` of the same size."""
        weights = {weight.path.split("/", 1)[1]: weight for weight in network.weights}
        for theirs, ours in variable_names(self.num_modules):
            weight = weights.pop(ours, None)
            if weight is None or not self._reader.has_tensor(theirs):
                raise ModelError(f"{self.prefix}: no counterpart for {theirs} ({ours})")
            # Checked before reading, because a damaged shape may be of any size.
            if tuple(self._shapes[theirs]) != tuple(weight.shape):
                raise ModelError(
                    f"{self.prefix}: {theirs} must be of shape {tuple(weight.shape)}. "
                    f"Received: shape {tuple(self._shapes[theirs])}"
                )
            try:
                value = self._reader.get_tensor(theirs)
            except MemoryError:
                raise
            except Exception as error:  # damage shows here, too: a checksum, the end of the file, …
                raise self._unreadable(error) from error
            if value.dtype.kind != "f" or not np.all(np.isfinite(value)):
                raise ModelError(
                    f"{self.prefix}: {theirs} does not hold finite floats, so this checkpoint is "
                    "broken. Use another one."
                )
            weight.assign(value)
        if weights:
            raise ModelError(f"{self.prefix}: the checkpoint lacks {', '.join(weights)}")

    def _unreadable(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.prefix}: not a readable checkpoint; one of its files is missing, damaged or "
            f"cut off ({plain_reason(error)}). Copy its .index and .data-00000-of-00001 again."
        )
