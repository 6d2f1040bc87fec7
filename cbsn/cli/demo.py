"""Makes the demo's noisy pictures; `make demo` denoises them and compares the results.

`cbsn demo FOLDER` writes FOLDER/noisy and FOLDER/clean: photographs from scikit-image,
retaken by a simulated noisy camera.
"""

import argparse
import shlex
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from cbsn.cli.parser import Parser, new_parser
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
    print(f"Denoise them with: cbsn denoise {shlex.quote(str(flags.folder / 'noisy'))}")


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser("Makes noisy pictures to try the other commands on, and their clean sides.")
    what = "where to write the folders noisy and clean"
    parser.add_argument("folder", nargs="?", type=Path, default="demo", metavar="DIR", help=what)
    return parser
