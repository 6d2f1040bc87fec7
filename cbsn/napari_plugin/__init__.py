"""The plugin for the viewer napari: reads stacks, denoises layers, and trains on them.

`napari.yaml` tells napari what there is; the entry point `napari.manifest` names that file.
"""
