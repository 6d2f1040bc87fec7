"""The conditional blind-spot network of C-BSN."""

import keras

from cbsn.networks.layers import DilatedModule
from cbsn.networks.two_branch import TwoBranchNetwork


@keras.saving.register_keras_serializable(package="cbsn")
class ConditionalBlindSpotNetwork(TwoBranchNetwork):
    """C-BSN's network: two dilated branches whose blindness can be switched on and off.

    (Jang et al., "Self-supervised Image Denoising with Downsampled Invariance Loss and
    Conditional Blind-Spot Network", ICCV 2023, arXiv 2304.09507.)

    With `blind=True`, output pixel (i, j) does not depend on input pixel (i, j); with
    `blind=False` it may. The weights are the same.

    Args:
        filters: int, number of channels C. Default 128.
        num_modules: int, dilated modules in each branch. Default 9. With both defaults the
            network has 98 variables and 3,656,131 parameters.
        channels: int, channels of the picture. Default 3.
        **kwargs: of `keras.Model`. With a mixed `dtype` policy the last convolution and the
            output stay float32.

    Input and output: as `TwoBranchNetwork` has them.

    Example:
        >>> network = ConditionalBlindSpotNetwork(filters=16, num_modules=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3)), blind=True).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: if `filters` or `channels` is below 1, or `num_modules` below 0.
    """

    blindness = "switched"

    def __init__(self, filters: int = 128, num_modules: int = 9, channels: int = 3, **kwargs):
        super().__init__(
            filters,
            num_modules,
            channels,
            make_module=lambda dilation, index, **common: DilatedModule(filters, **common),
            tail_filters=(filters, 64, 64),
            **kwargs,
        )
