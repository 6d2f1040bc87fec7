"""Denoises pictures with a trained model. See `--help`."""

import argparse

from cbsn import cli


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed."""
    # TensorFlow comes with these; `--help` shall not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.inference.files import denoise_files

    options = vars(flags)
    select_gpus(options.pop("gpu"))
    return denoise_files(**options)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = cli.make_parser("Denoises pictures with a trained model.")
    add = parser.add_argument
    unset = argparse.SUPPRESS
    cli.add_gpu(parser)
    add(
        "--modelpath",
        dest="model_path",
        metavar="MODEL",
        required=True,
        default=unset,
        help=f"{cli.MODEL}; or a *.weights.h5 file",
    )
    add(
        "--imagepath",
        dest="image_paths",
        metavar="GLOB",
        nargs="+",
        required=True,
        default=unset,
        help="pictures, folders or globs; in quotes, ** is any depth",
    )
    cli.add_save_path(parser)
    cli.add_bare_weights(parser)
    cli.add_denoising(parser)
    cli.add_rounding(parser)
    cli.add_format(parser)
    return parser


if __name__ == "__main__":
    cli.run(main, make_parser())
