"""Makes the demo's pictures and its report; `make demo` runs the commands in between.

`python -m cbsn demo pictures FOLDER` writes FOLDER/noisy and FOLDER/clean: photographs from
scikit-image, retaken by a simulated noisy camera. `python -m cbsn demo report FOLDER` compares
FOLDER/noisy, FOLDER/denoised and FOLDER/adapted with FOLDER/clean.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from cbsn.cli.flags import new_parser
from cbsn.evaluation.conventions import psnr
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture
from cbsn.noise.synthetic import neighbour_correlation, simulate_camera

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
CROP = 160


def write_pictures(folder: Path) -> None:
    """Writes PNG pictures with the same names into `noisy` and `clean` in `folder`."""
    correlations = []
    for seed, name in enumerate(PHOTOGRAPHS):
        photograph = getattr(skimage.data, name)()
        clean = simulate_camera(photograph, shot=0, read=0)
        noisy = simulate_camera(photograph, seed=seed)
        correlations.append(neighbour_correlation(noisy.astype(float) - clean))
        for kind, pixels in (("noisy", noisy), ("clean", clean)):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    lags = " ".join(f"{value:.2f}" for value in np.mean(correlations, axis=0))
    print(f"{len(PHOTOGRAPHS)} photographs in {folder}; noise correlation at 1 to 5 px: {lags}")


def report(folder: Path) -> None:
    """Prints PSNR before and after, and writes `before_after.png` into `folder`."""
    kinds = [kind for kind in ("noisy", "denoised", "adapted") if (folder / kind).is_dir()]
    rows, scores = [], []
    print(f"{'PSNR in dB':<12}" + "".join(f"{kind:>10}" for kind in kinds))
    for path in find_images(folder / "noisy"):
        clean = read_picture(folder / "clean" / path.name).pixels
        pictures = [read_picture(folder / kind / path.name).pixels for kind in kinds]
        scores.append([psnr(clean, picture) for picture in pictures])
        print(_line(path.stem, scores[-1]))
        rows.append(np.concatenate([_middle(p) for p in (*pictures, clean)], axis=1))
    print(_line("mean", np.mean(scores, axis=0)))
    half = len(rows) // 2
    columns = [np.concatenate(part) for part in (rows[:half], rows[half:])]
    picture = folder / "before_after.png"
    Image.fromarray(np.concatenate(columns, axis=1)).save(picture)
    print(f"{' | '.join(kinds)} | noise-free, side by side: {picture}")


def _line(name: str, values: Iterable[float]) -> str:
    return f"{name:<12}" + "".join(f"{value:>10.2f}" for value in values)


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = ((size - CROP) // 2 for size in pixels.shape[:2])
    return pixels[top : top + CROP, left : left + CROP]


def main(flags: argparse.Namespace) -> None:
    """Writes the pictures or the report."""
    {"pictures": write_pictures, "report": report}[flags.what](flags.folder)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser("The demo's pictures and its report.")
    parser.add_argument("what", choices=("pictures", "report"))
    parser.add_argument("folder", type=Path)
    return parser
