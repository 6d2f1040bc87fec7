"""What all networks have in common, and what others have to know of each."""

from typing import Any

import keras

Tensor = Any


class DenoisingNetwork(keras.Model):
    """Maps a picture to a picture; called as `network(x, blind=False, padding="same")`.

    A network that can be blind has also `blind_pass(x, random)`, which gives a prediction [N, H, W,
    C], and a mask [N, H, W, 1]: 1 where the prediction is blind, that is, does not depend on the
    pixel of `x` at its own place, else 0; None for everywhere. `random` gives
    `random.integers(shape, high)`, as `cbsn.objectives.objective.Objective` says.

    Args:
        filters, channels: ints, channels inside, and of the picture.
        **kwargs: of `keras.Model`.
    """

    blindness = "none"
    """"always" (`blind` changes nothing), "switched" (by `blind`), "masked" (where its input is
    masked; it refuses `blind=True`), or "none"."""

    is_local = True
    """Whether an input further away than `receptive_field_radius` cannot change an output."""

    receptive_field_radius: int
    """How many pixels away an input can change an output, in a network that is local."""

    size_multiple: int
    """Outputs whose heights and widths are multiples of this need no padding inside."""

    grid = 1
    """Tiles must start at multiples of this, for them to come out as the whole picture."""

    def __init__(self, filters: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels

    @property
    def halo(self) -> int:
        """What a tile is given on each side beyond what is wanted of it."""
        return -(-self.receptive_field_radius // self.grid) * self.grid

    def check_padding(self, padding: str) -> None:
        """Raises a ValueError for "valid" padding of a network that is not local."""
        if padding == "valid" and not self.is_local:
            raise ValueError(
                "Every output of this network depends on all of the input, so that no tile has an "
                f"inside. Received: padding={padding!r}"
            )

    def compute_output_shape(self, input_shape):  # noqa: D102
        return tuple(input_shape)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}
