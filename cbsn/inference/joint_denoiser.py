"""Denoising with a student and its teacher together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.inference.denoiser import ROUNDINGS, Denoiser, check_picture
from cbsn.inference.low_frequencies import with_low_frequencies
from cbsn.value_range import value_range


class JointDenoiser:
    """Takes the mean of what a student and its teacher make of a picture.

    The teacher's low frequencies, that is its colours, are replaced by the noisy picture's, as
    `with_low_frequencies` has it. The picture is in memory in floats, at about 80 bytes a pixel.

    Args:
        student: a denoiser.
        teacher: likewise; the result is rounded as the student's would be.

    Attributes:
        choices: str, what `load` has chosen, and why.
    """

    def __init__(self, student: Denoiser, teacher: Denoiser):
        self._denoisers = student, teacher
        self._round = ROUNDINGS[student.rounding]
        self.choices = student.choices

    @classmethod
    def load(
        cls, model_path: str | Path, teacher_path: str | Path, **options: Any
    ) -> "JointDenoiser":
        """Loads both.

        Args:
            model_path: the student, as for `Denoiser.load`.
            teacher_path: likewise.
            **options: of `Denoiser.load`, for both.

        Raises:
            CbsnError: as `Denoiser.load` does.
        """
        return cls(*(Denoiser.load(path, **options) for path in (model_path, teacher_path)))

    def __call__(
        self,
        image: np.ndarray,
        on_tile: Callable[[float], None] = lambda share: None,
        *,
        in_place: bool = False,
    ) -> np.ndarray:
        """Denoises one picture.

        Args:
            image: as for `Denoiser`.
            on_tile: called now and then with a share of the whole work; they add up to 1.
            in_place: whether to write the result over `image`.

        Returns:
            The denoised picture, of the same shape and dtype; the alpha channel as it was.

        Raises:
            ImageError: as `Denoiser` does.
            ModelError: likewise.
        """
        image = np.asarray(image)
        check_picture(image)
        output = image if in_place else image.copy()
        planes = output[..., None] if output.ndim == 2 else output
        colors = planes[..., : 3 if planes.shape[-1] >= 3 else 1]
        full = value_range(colors.dtype)
        noisy = colors if colors.dtype.kind == "f" else colors / np.float32(full)
        student, teacher = (
            denoise(noisy, lambda share: on_tile(share / 2)) for denoise in self._denoisers
        )
        mean = (student + with_low_frequencies(noisy, teacher)) / 2
        colors[...] = self._round(mean * full) if colors.dtype.kind == "u" else mean
        return output
