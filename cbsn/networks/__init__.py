"""Networks: image to image, knowing nothing of training."""

from cbsn.networks.cbsn import ConditionalBlindSpotNetwork

NETWORKS = {network.__name__: network for network in (ConditionalBlindSpotNetwork,)}
"""Every network that a recipe may name."""
