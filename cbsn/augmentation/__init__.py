"""Photographs that nobody has taken, made on the training device: `keras.ops` only."""

from cbsn.augmentation.noise import NoiseFamily, NoiseTables
from cbsn.augmentation.own_noise import OwnNoiseAugmentation
from cbsn.augmentation.photo import PhotoAugmentation

__all__ = ["NoiseFamily", "NoiseTables", "OwnNoiseAugmentation", "PhotoAugmentation"]
