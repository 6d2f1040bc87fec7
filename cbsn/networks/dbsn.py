"""The dilated blind-spot network of AP-BSN."""

import keras

from cbsn.networks.layers import FAN_IN_UNIFORM, DilatedModule
from cbsn.networks.two_branch import TwoBranchNetwork


@keras.saving.register_keras_serializable(package="cbsn")
class DilatedBlindSpotNetwork(TwoBranchNetwork):
    """AP-BSN's light dilated blind-spot network: always blind, its modules end linear.

    (Lee et al., "AP-BSN: Self-Supervised Denoising for Real-World Images via Asymmetric PD and
    Blind-Spot Network", CVPR 2022, arXiv 2203.11799.)

    Args:
        filters: int ≥ 2, number of channels C. Default 128.
        num_modules: int, dilated modules in each branch. Default 9. With both defaults the
            network has 98 variables and 3,656,131 parameters.
        channels: int, channels of the picture. Default 3.
        **kwargs: of `keras.Model`. With a mixed `dtype` policy the last convolution and the
            output stay float32.

    Input and output: as `TwoBranchNetwork` has them; values from 0 to 255. `blind` changes
    nothing.

    Example:
        >>> network = DilatedBlindSpotNetwork(filters=16, num_modules=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3))).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: if `filters` is below 2, `channels` below 1, or `num_modules` below 0.
    """

    def __init__(self, filters: int = 128, num_modules: int = 9, channels: int = 3, **kwargs):
        super().__init__(
            filters,
            num_modules,
            channels,
            make_module=lambda dilation, index, **common: DilatedModule(
                filters, None, FAN_IN_UNIFORM, **common
            ),
            tail_filters=(filters, filters // 2, filters // 2),
            initializers=(FAN_IN_UNIFORM, FAN_IN_UNIFORM),
            **kwargs,
        )
