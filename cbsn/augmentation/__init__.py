"""Makes artificial training photographs on the training device, with `keras.ops` only."""

from cbsn.augmentation.noise import NoiseFamily, NoiseTables
from cbsn.augmentation.photo import OwnNoiseAugmentation, PhotoAugmentation

__all__ = ["NoiseFamily", "NoiseTables", "OwnNoiseAugmentation", "PhotoAugmentation"]
