"""Networks that map a picture to a picture, independent of how they are trained."""

from cbsn.networks.blindspot_unet import BlindSpotUNet
from cbsn.networks.probabilistic_unet import ProbabilisticBlindSpotUNet
from cbsn.networks.resunet import ResidualAttentionUNet
from cbsn.networks.ssbsn import SelfSimilarityBlindSpotNetwork
from cbsn.networks.triangular import TriangularMaskedBlindSpotNetwork
from cbsn.networks.two_branch import ConditionalBlindSpotNetwork, DilatedBlindSpotNetwork

NETWORKS = {
    network.__name__: network
    for network in (
        BlindSpotUNet,
        ConditionalBlindSpotNetwork,
        DilatedBlindSpotNetwork,
        ProbabilisticBlindSpotUNet,
        ResidualAttentionUNet,
        SelfSimilarityBlindSpotNetwork,
        TriangularMaskedBlindSpotNetwork,
    )
}
"""Every network that a recipe may name."""
