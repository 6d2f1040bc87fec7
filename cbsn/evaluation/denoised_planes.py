"""Planes of stacks, denoised as `cbsn denoise` does."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cbsn.data.stack_pairs import Plane, StackFiles
from cbsn.images.stacks.scaling import Scaling
from cbsn.images.stacks.stack import Stack
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import StackWork

if TYPE_CHECKING:  # it loads TensorFlow
    from cbsn.inference.denoiser import Denoiser


class DenoisedPlanes:
    """Denoises planes as `cbsn denoise` does, with what its options repair before.

    A model of volumes sees the other planes of a volume, too. Those that it denoises together are
    kept until a plane of others is asked for, so that planes in their order are denoised once.
    Planes of other models are denoised whenever they are asked for, so that this can be timed.

    Args:
        model: what denoises them.
        files: the noisy stacks.
        options: how they are read; of a selection, the model sees nothing beyond.
        scalings: by `Plane.key`, how the stacks are scaled.
        dtype: of results, see `StackOptions`.

    Example:
        >>> denoise = DenoisedPlanes(model, pairs.noisy, options, scalings, "float32")
        >>> clean = denoise(pairs.planes[0])
    """

    def __init__(
        self,
        model: "Denoiser",
        files: StackFiles,
        options: StackOptions,
        scalings: Mapping[tuple[str, int], Scaling],
        dtype: str,
    ):
        self._model, self._files, self._scalings = model, files, scalings
        self._options = dataclasses.replace(options, dtype=dtype)
        self._stack: Stack | None = None
        self._planes: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, plane: Plane) -> np.ndarray:
        """Returns a denoised plane, [H, W, 1 or 3]; alpha is omitted."""
        stack = self._files.stack(plane.key)
        if stack is not self._stack:  # another one, or a file that has been opened again
            path = self._files.paths[plane.stack]
            scaling = self._scalings[plane.key]
            self._work = StackWork(stack, [self._model], self._options, path, scaling)
            self._stack, self._planes = stack, {}
        layout = self._work.stack.layout
        index = tuple(
            layout.taken.get(axis, range(layout.size(axis))).index(plane.position.get(axis, 0))
            for axis in layout.outer
        )
        if not self._model.of_volumes or index not in self._planes:
            self._denoise(index)
        denoised = self._planes[index]
        return denoised[..., None] if denoised.ndim == 2 else denoised[..., :3]

    def _denoise(self, index: tuple[int, ...]) -> None:
        """Denoises a plane, and those that are denoised together with it."""
        layout, self._planes = self._work.layout, {}
        shape = layout.shape[len(layout.outer) :]
        for step in self._work.steps(None if self._model.of_volumes else [index]):
            if index in step.indices:
                result = self._work.denoise(step, self._work.read(step))
                for each, part in zip(step.indices, result, strict=True):
                    whole = self._planes.setdefault(each, np.empty(shape, layout.dtype))
                    whole[step.rows, step.columns] = part
