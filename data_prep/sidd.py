"""The Smartphone Image Denoising Dataset (SIDD), Medium sRGB part, as raw data."""

from pathlib import Path

from cbsn.errors import DataError
from data_prep import folder
from data_prep.raw import RawData


def find(source: str | Path) -> RawData:
    """The noisy pictures of SIDD Medium: `SOURCE/SIDD_Medium_Srgb/Data/*/*NOISY*.PNG`.

    Raises:
        DataError: there are none.
    """
    root = Path(source).absolute() / "SIDD_Medium_Srgb" / "Data"
    files = sorted(
        path
        for path in root.glob("*/*")
        if "NOISY" in path.name.upper() and path.suffix.upper() == ".PNG"
    )
    if not files:
        raise DataError(
            f"There is no {root / '*' / '*NOISY*.PNG'}. Download SIDD Medium (sRGB) from "
            "https://abdokamel.github.io/sidd and say with --source where its folder lies."
        )
    return RawData("SIDD", root, tuple(files), folder.read, folder.longest_side, "uint8", offset=10)
