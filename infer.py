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
    add(
        "--savepath",
        dest="save_path",
        metavar="DIR",
        required=True,
        default=unset,
        help="folder for the denoised pictures, made if it is not there",
    )
    add("--seed", type=int, default=0, help="of the random choices of --r3")
    cli.add_bare_weights(parser)
    cli.add_denoising(parser)
    add(
        "--rounding",
        choices=("round", "truncate"),
        default="round",
        help="to integer pixels; truncate is what the original code does",
    )
    add(
        "--format",
        choices=("auto", "png", "jpeg", "tiff", "webp", "bmp"),
        default="auto",
        help="of the results; auto keeps the source's, but writes PNG where that is JPEG",
    )
    return parser


if __name__ == "__main__":
    cli.run(main, make_parser())
