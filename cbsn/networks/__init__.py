"""Networks: image to image, knowing nothing of training.

Each has a `channels` to give and to get, and is called as `network(x, blind=False,
padding="same")`. What else others have to know of it:

- `blindness`: "always" (`blind` changes nothing), "switched" (by `blind`), "masked" (where its
  input is masked; it refuses `blind=True`), or "none".
- `blind_pass(x, random)`, unless it is "none": a prediction [N, H, W, C], and a mask [N, H, W, 1]
  that is 1 where it is blind, that is, does not depend on the pixel of `x` at its own place; None
  for everywhere. `random` gives `random.integers(shape, high)`.
- `receptive_field_radius`, and `is_local`, whether it is the limit of what is seen.
- `size_multiple`: of which sizes need no padding inside; `grid`: of which the corners of tiles
  must be, for tiles to come out as the whole.
- `has_loop`: whether there is a loop in its graph.
"""

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
