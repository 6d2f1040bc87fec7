"""Cuts noisy pictures into the patches that training reads. See `--help`."""

import argparse
import os

from cbsn.cli.flags import add_white, new_parser
from data_prep.prepare import DATASET_FOLDER, prepare


def main(flags: argparse.Namespace) -> int:
    """Prepares the data set; returns 1 if some pictures could not be converted."""
    report = prepare(**vars(flags))
    print(report)
    return 1 if report.failed else 0


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags; in the namespace they are named as `prepare`'s arguments."""
    parser = new_parser("Cuts noisy pictures into the patches that training reads.")
    parser.argument_default = argparse.SUPPRESS  # `prepare` has the defaults
    add = parser.add_argument
    pictures = (
        "SIDD (Medium sRGB), DND, SIDD_VAL (SIDD's validation blocks, as PNG pairs), or a "
        "folder, a quoted glob or one picture (a folder named like a kind: ./SIDD)"
    )
    add("--dataset", required=True, help=pictures)
    add("--source", default=DATASET_FOLDER, help="folder where SIDD or DND lie")
    out = (
        "folder to write (default: ./dataset/SIDD256, ./dataset/DND256, ./dataset/SIDD_VAL "
        "or ./dataset/FOLDER256, by kind and patch size; with a number where other pictures are)"
    )
    add("--out", help=out)
    add("--patchsize", dest="patch_size", metavar="P", type=int, default=256, help="in pixels")
    add("--stride", type=int, default=200, help="distance of neighbouring patches")
    offset = "distance of the first patch from the edges (default: 10 for SIDD, else 0)"
    add("--offset", type=int, help=offset)
    add_white(parser)
    add("--workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    anew = "convert everything anew, replacing what is there"
    add("--force", action="store_true", default=False, help=anew)
    return parser
