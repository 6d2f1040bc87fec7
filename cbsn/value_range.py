"""What the values of a picture mean."""

from typing import Any

import numpy as np


def value_range(dtype: Any) -> float:
    """Returns what 1.0 is in pictures of this dtype: 255, 65535, or 1 for floats.

    Raises:
        TypeError: for any other dtype.
    """
    dtype = np.dtype(dtype)
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max)
    if dtype.kind == "f":
        return 1.0
    raise TypeError(f"Pictures are uint8, uint16 or float in [0, 1]. Received: dtype={dtype}")
