"""Networks: image to image, knowing nothing of training."""

from cbsn.networks.cbsn import ConditionalBlindSpotNetwork
from cbsn.networks.dbsn import DilatedBlindSpotNetwork
from cbsn.networks.ssbsn import SelfSimilarityBlindSpotNetwork

NETWORKS = {
    network.__name__: network
    for network in (
        ConditionalBlindSpotNetwork,
        DilatedBlindSpotNetwork,
        SelfSimilarityBlindSpotNetwork,
    )
}
"""Every network that a recipe may name."""
