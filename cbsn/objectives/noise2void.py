"""The objective of Noise2Void."""

from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.objectives.objective import Objective, mean_where

Tensor = Any

_ERRORS = {"squared": ops.square, "absolute": ops.abs}


class Noise2Void(Objective):
    """Trains a network to predict noisy pixels from others, whose noise is independent of theirs.

    For a noisy batch x (Krull et al., CVPR 2019, arXiv 1811.10980, equation 9):

        total = blind = mean (f_blind(x) − x)²  over the pixels where f is blind

    Works with any network that can be blind; one with masked input is trained at masked pixels.

    Args:
        error: "squared", or "absolute" for |f_blind(x) − x|.

    Raises:
        ConfigError: if `error` is something else.
    """

    TERMS = ("blind",)

    def __init__(self, error: str = "squared"):
        if error not in _ERRORS:
            raise ConfigError(f"error must be {' or '.join(_ERRORS)}. Received: error={error!r}")
        self._error = _ERRORS[error]

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch (see `Objective`); `step` is not used."""
        output, valid = network.blind_pass(noisy, random)
        blind = mean_where(self._error(ops.cast(output, "float32") - noisy), valid)
        return {"total": blind, "blind": blind}
