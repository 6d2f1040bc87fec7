"""TM-BSN's idea: a blind spot in the shape of a diamond, of any size, at full resolution."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.errors import check_hole
from cbsn.networks.layers import Convolution, build_chain, pointwise, scaled
from cbsn.networks.unet import UNet

Tensor = Any

_DIRECTIONS = range(4)
_UP_RIGHT = (-1, 1)  # pixels down and to the right

_HE_OF_SEEN = scaled(3.0, "truncated_normal")
"""The initialiser `HE` for kernels of which only 6 of 9 values are used."""


@keras.saving.register_keras_serializable(package="cbsn")
class TriangularConvolution(Convolution):
    """A 3×3 convolution that sees only one side of a diagonal, in one of four directions.

    An output sees the inputs x pixels to the right and y pixels down where x − y ≥ 0: the upper
    right triangle of the kernel, its diagonal included. With `turns`, the kernel is turned by as
    many quarter turns counter-clockwise, so all four directions share its weights. However many
    such convolutions follow each other, the same inequality holds for all of them together.

    (Park et al., TM-BSN, CVPR 2026, arXiv 2604.04484.)

    Args:
        filters, **kwargs: see `keras.layers.Conv2D`. By default the kernel is initialised so that
            the output's variance is that of `HE` without a mask.
    """

    _MASK = np.triu(np.ones((3, 3), "float32"))[..., None, None]

    def __init__(self, filters: int, kernel_size: int | tuple[int, int] = 3, **kwargs):
        kwargs.setdefault("kernel_initializer", _HE_OF_SEEN)
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs: Tensor, turns: int = 0) -> Tensor:
        """Convolves the input, with zeros around it; `turns` is a Python int."""
        kernel = self.kernel * ops.cast(self._MASK, self.kernel.dtype)
        return self._convolve(inputs, _rotated(kernel, turns), "same")


@keras.saving.register_keras_serializable(package="cbsn")
class TriangularMaskedBlindSpotNetwork(UNet):
    """A U-Net that looks in four diagonal directions, past a diamond-shaped hole of any size.

    In a photograph that was demosaiced, the noise of a pixel is correlated with that of the pixels
    around it, within a diamond. One U-Net of triangular-masked convolutions is applied in four
    directions, in each of which a pixel sees one side of a diagonal line. The four results, moved
    away from the pixel by the hole's radius, are combined by 1×1 convolutions. So no output
    depends on an input |x| + |y| < (hole + 1) / 2 pixels away. The weights do not depend on the
    hole, which may be another one in each call.

    (Triangular masks: Park et al., TM-BSN, CVPR 2026, arXiv 2604.04484. Four directions and moved
    features: Laine et al., NeurIPS 2019, arXiv 1901.10277. A large hole to train with, a small one
    to denoise: Chen et al., AT-BSN, CVPR 2024, arXiv 2303.16783. The layers are this package's.)

    Before features are halved, they are moved by one pixel, so that a cell of four pixels sees no
    more than each of them may.

    Args:
        filters: int, number of channels at full resolution in each direction; it doubles with
            every halving.
        depth, channels, **kwargs: see `EncoderDecoder`. With the defaults the network has 40
            variables and 1,218,675 parameters.
        hole: int, width of the diamond in pixels that a blind call does not see: odd, from 1 (the
            pixel itself) to 127.
        denoise_hole: int, the same for calls that are not blind; or 0 for no hole.

    Input and output: see `EncoderDecoder`, except that inputs are padded with zeros instead of
    reflections, in which a pixel could see itself.

    Example:
        >>> network = TriangularMaskedBlindSpotNetwork(filters=8, depth=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3)), blind=True).shape
        (1, 60, 60, 3)
        >>> len(network.with_holes(keras.ops.zeros((1, 60, 60, 3)), (1, 5, 9)))
        3

    Raises:
        ValueError: see `EncoderDecoder`; also if a hole is out of its range.
    """

    blindness = "switched"
    padding_mode = "zeros"
    pool_shift = 1

    def __init__(
        self,
        filters: int = 24,
        depth: int = 3,
        hole: int = 9,
        denoise_hole: int = 3,
        channels: int = 3,
        **kwargs,
    ):
        super().__init__(filters, depth, channels, **kwargs)
        check_hole("hole", hole, least=1)
        check_hole("denoise_hole", denoise_hole)
        self.hole = hole
        self.denoise_hole = denoise_hole
        if denoise_hole == hole:
            self.blindness = "always"
        self.make_layers()
        common = {"dtype": self.dtype_policy}
        self.tail = [
            pointwise(4 * filters, name="tail1", **common),
            pointwise(2 * filters, name="tail2", **common),
            pointwise(channels, None, name="tail3", dtype="float32"),
        ]
        self.build((None, None, None, channels))

    def make_convolution(self, width: int, name: str) -> TriangularConvolution:  # noqa: D102
        return TriangularConvolution(width, activation="relu", name=name, dtype=self.dtype_policy)

    def build(self, input_shape):  # noqa: D102
        super().build(input_shape)
        build_chain(self.tail, len(_DIRECTIONS) * self.filters)

    @property
    def receptive_field_radius(self) -> int:  # noqa: D102
        widest = max(self.hole, self.denoise_hole)
        return super().receptive_field_radius + max(_step(widest))

    def call(
        self,
        inputs: Tensor,
        blind: bool = False,
        padding: str = "same",
        hole: int | None = None,
    ) -> Tensor:
        """Denoises a normalised batch.

        Args:
            inputs: float [N, H, W, channels].
            blind: Python bool, whether to take `hole` instead of `denoise_hole` of the network.
            padding: "same" or "valid".
            hole: int, another width of the hole, or 0 for none. Default None.
        """
        if hole is None:
            hole = self.hole if blind else self.denoise_hole
        return self.with_holes(inputs, (hole,), padding)[0]

    def with_holes(
        self, inputs: Tensor, holes: Sequence[int], padding: str = "same"
    ) -> list[Tensor]:
        """Returns the results for several holes, for little more work than for one.

        Raises:
            ValueError: if a hole is out of its range, or with `padding="valid"` is larger than
                both holes of the network.
        """
        for hole in holes:
            check_hole("hole", hole)
        if padding == "valid" and max(holes) > max(self.hole, self.denoise_hole):
            raise ValueError(
                "With padding='valid' a hole is at most that of the network, "
                f"{max(self.hole, self.denoise_hole)}. Received: hole={max(holes)}"
            )
        x = self.padded(inputs)
        seen = [self.features(x, turns=turns) for turns in _DIRECTIONS]
        return [self.cropped(self._combined(seen, hole), inputs, padding) for hole in holes]

    def _combined(self, seen: Sequence[Tensor], hole: int) -> Tensor:
        """Returns the pictures that features in the four directions give with a hole."""
        step = _step(hole)
        x = ops.concatenate(
            [moved(each, *_turned(step, turns)) for turns, each in enumerate(seen)], axis=-1
        )
        for layer in self.tail:
            x = layer(x)
        return x

    def halved(  # noqa: D102
        self, x: Tensor, factors: tuple[int, ...], turns: int = 0
    ) -> Tensor:
        return super().halved(moved(x, *_turned(_UP_RIGHT, turns)), factors)

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, None]:
        """Runs the network blind at every pixel: the mask is None, and `random` is not used."""
        return self(inputs, blind=True), None

    def get_config(self):  # noqa: D102
        holes = {"hole": self.hole, "denoise_hole": self.denoise_hole}
        return {**super().get_config(), **holes}


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """Gives each pixel of [N, H, W, C] what another pixel has, `down` and `right` of it.

    Where that lies outside, it gets zeros.
    """
    height, width = ops.shape(x)[1:3]
    margins = [(max(-step, 0), max(step, 0)) for step in (down, right)]
    x = ops.pad(x, ((0, 0), *margins, (0, 0)))
    top, left = max(down, 0), max(right, 0)
    return x[:, top : top + height, left : left + width]


def _rotated(kernel: Tensor, turns: int) -> Tensor:
    """Returns a kernel after 0 to 3 quarter turns counter-clockwise.

    `ops.rot90` takes a dozen operations for this, in each of the convolutions.
    """
    if turns % 2:
        kernel = ops.transpose(kernel, (1, 0, 2, 3))
    for axis in ((), (0,), (0, 1), (1,))[turns]:
        kernel = ops.flip(kernel, axis)  # one at a time, as OpenVINO converts no other
    return kernel


def _step(hole: int) -> tuple[int, int]:
    """Returns how many pixels, down and to the right, the first direction looks past a hole."""
    radius = (hole + 1) // 2
    return -(radius // 2), radius - radius // 2


def _turned(step: tuple[int, int], turns: int) -> tuple[int, int]:
    """Returns a step after quarter turns counter-clockwise."""
    for _ in range(turns):
        down, right = step
        step = -right, down
    return step
