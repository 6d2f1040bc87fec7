"""One picture of a report."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ReportPicture:
    """A picture before and after.

    Args:
        name: str, for people.
        noisy: [H, W, C], uint8, uint16 or float, of which [0, 1] is shown; C is 1 or 3.
        denoised: by method, at least one; same shape and dtype. The first one decides which
            places are shown in detail.
        clean: same shape and dtype, or None where there is none.
        captions: short texts, such as "31.20 dB, SSIM .892", by "noisy" or method; it may lack
            some.
    """

    name: str
    noisy: np.ndarray
    denoised: Mapping[str, np.ndarray]
    clean: np.ndarray | None
    captions: Mapping[str, str]

    @property
    def sides(self) -> list[tuple[str, np.ndarray]]:
        """What there is to see, in order, each with its label: noisy, the methods', clean."""
        clean = [] if self.clean is None else [("clean", self.clean)]
        return [("noisy", self.noisy), *self.denoised.items(), *clean]
