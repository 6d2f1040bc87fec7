"""Stacks: images with named axes, in multi-page TIFF, OME-Zarr and microscopes' own formats."""
