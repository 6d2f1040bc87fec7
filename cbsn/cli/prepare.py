"""Cuts noisy pictures or stacks into the patches that training reads. See `--help`."""

import argparse
import os

from cbsn.cli.flags import add_axes, add_normalize, add_repair, add_white
from cbsn.cli.parser import Parser, add_input, new_parser


def main(flags: argparse.Namespace) -> int:
    """Prepares the data set; returns 1 if some pictures could not be converted."""
    from data_prep.prepare import prepare  # `--help` need not wait for it

    report = prepare(**vars(flags))
    print(report)
    return 1 if report.failed else 0


def make_parser() -> Parser:
    """Returns the parser of the flags; in the namespace they are named as `prepare`'s arguments."""
    parser = new_parser(
        "Cuts noisy pictures, the planes of stacks, or volumes into the patches that training "
        "reads. "
        "cbsn train does so by itself; "
        "prepare large sets once.",
        common=("dataset", "source", "out", "patch_size", "stride", "force"),
        examples="""
  cbsn prepare photos                          # a folder → dataset/photos256
  cbsn prepare 'photos/**/*.tif' --out patches
  cbsn prepare cells.tif --select c=0          # a stack → dataset/FOLDER128
  cbsn prepare SIDD --source /data             # /data/SIDD_Medium_Srgb → dataset/SIDD256
""",
    )
    parser.argument_default = argparse.SUPPRESS  # `prepare` has the defaults
    add = parser.add_argument
    pictures = (
        "a folder, a glob in quotes, one picture or stack, or SIDD (Medium sRGB), DND, SIDD_VAL "
        "(SIDD's validation blocks, as PNG pairs); ./SIDD is a folder of that name"
    )
    add_input(parser, "dataset", pictures, "--dataset", several=False)
    add("--source", metavar="DIR", help="folder of SIDD or DND (default: dataset)")
    out = (
        "folder to write (default: dataset/FOLDER256, dataset/SIDD256 and so on, by name and "
        "patch size; with a checksum where other pictures have that name)"
    )
    add("--out", metavar="DIR", help=out)
    size = "side of the patches in pixels (default: 256; of stacks 128)"
    add("--patch_size", "--patchsize", metavar="N", type=int, help=size)
    depth = (
        "planes of the patches along the axis Z of stacks, for networks in three dimensions "
        "(default: 1, plane by plane)"
    )
    add("--patch_depth", metavar="N", type=int, help=depth)
    stride = "distance between neighbouring patches (default: 200; of stacks the patch size)"
    add("--stride", type=int, metavar="N", help=stride)
    offset = "distance of the first patch from the edges (default: 10 for SIDD, else 0)"
    add("--offset", type=int, metavar="N", help=offset)
    add_white(parser)
    add_axes(parser)
    scaling = (
        "what a network will see as 0 and 1 in stacks: deviation (mean, and mean + standard "
        "deviation), percentile, range, dtype, or two values such as 100,4095; auto: deviation"
    )
    add_normalize(parser, scaling)
    add_repair(parser)
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    anew = "prepare everything again, and replace what is there"
    add("--force", action="store_true", default=False, help=anew)
    return parser
