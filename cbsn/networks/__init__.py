"""Networks: image to image, knowing nothing of training."""

from cbsn.networks.blindspot_unet import BlindSpotUNet
from cbsn.networks.cbsn import ConditionalBlindSpotNetwork
from cbsn.networks.dbsn import DilatedBlindSpotNetwork
from cbsn.networks.resunet import ResidualAttentionUNet
from cbsn.networks.ssbsn import SelfSimilarityBlindSpotNetwork

NETWORKS = {
    network.__name__: network
    for network in (
        BlindSpotUNet,
        ConditionalBlindSpotNetwork,
        DilatedBlindSpotNetwork,
        ResidualAttentionUNet,
        SelfSimilarityBlindSpotNetwork,
    )
}
"""Every network that a recipe may name."""
