"""Makes the demo's noisy pictures; `make demo` denoises them and compares the results.

`python -m cbsn demo FOLDER` writes FOLDER/noisy and FOLDER/clean: photographs from scikit-image,
retaken by a simulated noisy camera.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from cbsn.cli.flags import new_parser
from cbsn.noise.synthetic import neighbour_correlation, simulate_camera

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def main(flags: argparse.Namespace) -> None:
    """Writes PNG pictures of equal names into the two folders."""
    correlations = []
    for seed, name in enumerate(PHOTOGRAPHS):
        photograph = getattr(skimage.data, name)()
        clean = simulate_camera(photograph, shot=0, read=0)
        noisy = simulate_camera(photograph, seed=seed)
        correlations.append(neighbour_correlation(noisy.astype(float) - clean))
        for kind, pixels in (("noisy", noisy), ("clean", clean)):
            path = flags.folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    lags = " ".join(f"{value:.2f}" for value in np.mean(correlations, axis=0))
    print(
        f"{len(PHOTOGRAPHS)} photographs in {flags.folder}; noise correlated at 1 to 5 px by {lags}"
    )


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser("Makes noisy pictures to try the programs on, and their clean sides.")
    parser.add_argument("folder", type=Path, help="where to write the folders noisy and clean")
    return parser
