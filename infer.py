"""Denoises pictures, with the model that ships or another one. See `--help`."""

import argparse

from cbsn import cli


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed."""
    # TensorFlow comes with these; `--help` shall not wait for it.
    from cbsn.denoising import denoise
    from cbsn.devices import select_gpus

    options = vars(flags)
    select_gpus(options.pop("gpu"), most=1)
    return denoise(**options)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = cli.make_parser(
        "Denoises pictures: with the model that ships, or with one that train.py has trained."
    )
    add = parser.add_argument
    unset = argparse.SUPPRESS
    cli.add_gpu(parser)
    add(
        "--modelpath",
        dest="model_path",
        metavar="MODEL",
        help=f"{cli.MODEL}; or a *.weights.h5 file; without the flag one that ships, by --quality",
    )
    add(
        "--quality",
        choices=("fast", "default", "best"),
        help="without --modelpath: fast is the small network that ships (photo), three times as "
        "fast as the default, the large one (photo_large); best is the large one on each picture "
        "in its eight orientations, eight times as long",
    )
    add(
        "--adapt",
        type=float,
        metavar="MINUTES",
        help="train the model on these very pictures first, for that many minutes; its weights "
        "stay where that makes it no better by its own loss, or where no noise is seen",
    )
    add(
        "--adapt_save",
        metavar="DIR",
        help="folder to keep the adapted model in, for --modelpath",
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
    cli.add_white(parser)
    cli.add_format(parser)
    return parser


if __name__ == "__main__":
    cli.run(main, make_parser())
