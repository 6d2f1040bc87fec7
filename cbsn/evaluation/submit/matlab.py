"""MATLAB files of version 5, uncompressed, as the benchmarks' sites take them."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from cbsn.data.mat_files import load_mat
from cbsn.errors import DataError, plain_reason
from cbsn.files import atomic_path


def write_mat(path: Path, variables: dict[str, Any]) -> None:
    """Writes variables to a file, atomically.

    Args:
        path: of a folder that exists.
        variables: by name: arrays (of dtype object: cells), strings, numbers or dicts (structs).

    Raises:
        OSError: it cannot be written; an earlier file is intact.
    """
    with atomic_path(path) as temporary:
        scipy.io.savemat(temporary, variables)


def read_mat(path: Path, name: str) -> np.ndarray:
    """Reads one variable.

    Raises:
        DataError: the file is broken, or has no such variable.
    """
    try:
        return load_mat(path, [name])[name]
    except KeyError:
        raise DataError(f"{path} has no variable {name}.") from None
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        reason = plain_reason(error)
        raise DataError(f"{path} cannot be read, it may be damaged: {reason}.") from error
