"""The blind-spot U-Net of Noise2Void, N2V2 and structN2V, for pictures and volumes."""

from typing import Any

import keras

from cbsn.networks.denoising_network import halve
from cbsn.networks.layers import HE, build_chain
from cbsn.networks.masking import Masking
from cbsn.networks.unet import UNet

Tensor = Any


@keras.saving.register_keras_serializable(package="cbsn")
class BlindSpotUNet(UNet):
    """A U-Net that is blind where its input is masked.

    (Krull et al., "Noise2Void", CVPR 2019, arXiv 1811.10980; U-Net: Ronneberger et al., MICCAI
    2015, arXiv 1505.04597.) It has two 3×3 convolutions at each resolution, with max-pooling in
    between. Each decoder level applies a 3×3 convolution, doubles the size (nearest neighbour) and
    concatenates the skip. All convolutions end in ReLU except the last one, a 1×1 convolution.

    An ordinary call sees every pixel. A blind pass hides one pixel of each cell, and the pixels
    around it that share its noise; its output is blind only at the one pixel.

    With `pooling="blur"`, `top_skip=False` and `replacement="median"` it is N2V2's network, whose
    results have no checkerboards (Höck et al., ECCV-W 2022, arXiv 2211.08512).

    Args:
        filters, depth, channels, **kwargs: see `EncoderDecoder`. With the defaults the network
            has 36 variables and, for gray pictures, 2,140,065 parameters.
        mask_cell: int, c ≥ 2: least side of the cells of a blind pass, which masks up to 1/c² of
            the pixels, or 1/c³ of those of a volume.
        mask_shape: text, which pixels around the predicted one are hidden, too (structN2V); see
            `cbsn.networks.masking.parse_mask_shape`. Default "point", none.
        replacement: "random" or "median", what the network sees in place of the predicted pixel;
            see `cbsn.networks.masking.Masking`.
        pooling: "max", or "blur" for max-blur pooling.
        top_skip: bool, whether there is a skip at full resolution.
        dimensions: int, 2, or 3 for volumes with 3×3×3 convolutions.
        z_halvings: int, with three dimensions: how many of the halvings, the last ones, also halve
            the number of planes. Fewer than `depth` where planes lie further apart than pixels.

    Input and output: see `EncoderDecoder`.

    Example:
        >>> network = BlindSpotUNet(channels=1)
        >>> network(keras.ops.zeros((1, 64, 64, 1))).shape
        (1, 64, 64, 1)
        >>> network = BlindSpotUNet(channels=1, dimensions=3, z_halvings=1)
        >>> network(keras.ops.zeros((1, 16, 64, 64, 1))).shape
        (1, 16, 64, 64, 1)

    Raises:
        ValueError: see `EncoderDecoder` and `Masking`; also if another value is unknown.
    """

    blindness = "masked"
    head_initializer = HE

    def __init__(
        self,
        filters: int = 32,
        depth: int = 3,
        mask_cell: int = 4,
        channels: int = 3,
        mask_shape: str = "point",
        replacement: str = "random",
        pooling: str = "max",
        top_skip: bool = True,
        dimensions: int = 2,
        z_halvings: int = 0,
        **kwargs,
    ):
        for name, value, known in (
            ("dimensions", dimensions, (2, 3)),
            ("pooling", pooling, ("max", "blur")),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} must be {known[0]} or {known[1]}. Received: {name}={value!r}"
                )
        if dimensions == 2 and z_halvings:
            raise ValueError(
                "z_halvings is for three dimensions. "
                f"Received: z_halvings={z_halvings}, dimensions={dimensions}"
            )
        super().__init__(
            filters, depth, channels, z_halvings if dimensions == 3 else None, **kwargs
        )
        self.masking = Masking(mask_shape, mask_cell, replacement, dimensions)
        self.orientations = self.masking.orientations
        self.flips_z = self.masking.flips_z
        self.mask_cell = mask_cell
        self.mask_shape = mask_shape
        self.replacement = replacement
        self.pooling = pooling
        self.top_skip = top_skip
        self.pool_reach = int(pooling == "blur")
        self.make_layers()
        kind = keras.layers.Conv2D if dimensions == 2 else keras.layers.Conv3D
        common = {"kernel_initializer": self.head_initializer, "dtype": "float32"}
        self.head = kind(self.head_channels, 1, name="head", **common)
        self.build((*(None,) * (dimensions + 1), channels))

    @property
    def head_channels(self) -> int:
        """Number of channels of the last convolution."""
        return self.channels

    def make_convolution(self, width: int, name: str) -> Any:  # noqa: D102
        if self.dimensions == 2:
            return super().make_convolution(width, name)
        common = {"activation": "relu", "kernel_initializer": HE, "dtype": self.dtype_policy}
        return keras.layers.Conv3D(width, 3, padding="same", name=name, **common)

    def build(self, input_shape):  # noqa: D102
        super().build(input_shape)
        build_chain([self.head], self.filters, self.dimensions)

    def transform(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return self.head(self.features(inputs))

    def halved(self, x: Tensor, factors: tuple[int, ...]) -> Tensor:  # noqa: D102
        return halve(x, factors, blur=self.pooling == "blur")

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, Tensor]:
        """Runs the network on masked pictures; the output is blind at the pixels of the mask."""
        inputs, mask = self.masking(inputs, random)
        return self(inputs), mask

    def get_config(self):  # noqa: D102
        config = {**super().get_config(), "mask_cell": self.mask_cell, "top_skip": self.top_skip}
        for name in ("mask_shape", "replacement", "pooling", "dimensions"):
            config[name] = getattr(self, name)
        config["z_halvings"] = self.z_grid.bit_length() - 1
        return config
