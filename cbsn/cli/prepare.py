"""Cuts noisy pictures into the patches that training reads. See `--help`."""

import argparse
import os

from cbsn.cli.flags import add_white, new_parser, run
from data_prep.prepare import DATASET_FOLDER, prepare


def main(flags: argparse.Namespace) -> int:
    """Prepares the data set; returns 1 if some pictures could not be converted."""
    report = prepare(**vars(flags))
    print(report)
    return 1 if report.failed else 0


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags, whose names in the namespace are `prepare`'s arguments."""
    parser = new_parser("Cuts noisy pictures into the patches that training reads.")
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add(
        "--dataset",
        required=True,
        default=unset,
        help="SIDD (Medium sRGB), DND, SIDD_VAL (SIDD's validation blocks, as PNG pairs), or a "
        "folder, a quoted glob or one picture (a folder named like a kind: ./SIDD)",
    )
    add("--source", default=DATASET_FOLDER, help="folder where SIDD or DND lie")
    add(
        "--out",
        default=unset,
        help="folder to write (default: ./dataset/SIDD256, ./dataset/DND256, ./dataset/SIDD_VAL "
        "or ./dataset/FOLDER256, by kind and patch size; with a number where other pictures are)",
    )
    add("--patchsize", dest="patch_size", metavar="P", type=int, default=256, help="in pixels")
    add("--stride", type=int, default=200, help="distance of neighbouring patches")
    add(
        "--offset",
        type=int,
        default=unset,
        help="distance of the first patch from the edges (default: 10 for SIDD, else 0)",
    )
    add_white(parser)
    add("--workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    add("--force", action="store_true", help="convert everything anew, replacing what is there")
    return parser


def command() -> None:
    """Runs the command."""
    run(main, make_parser(), tensorflow=False)
