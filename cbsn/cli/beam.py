"""Denoises pictures in an Apache Beam pipeline. See `--help`."""

import argparse
import functools
import importlib.util
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from cbsn.cli.flags import MODEL, add_denoiser, add_files, add_model, add_stacks
from cbsn.cli.parser import Parser
from cbsn.errors import ConfigError
from cbsn.signals import STOPPING


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures and stacks; returns 1 if some of them failed."""
    if importlib.util.find_spec("apache_beam") is None:
        install = "pip install 'cbsn[beam]' (from a clone: pip install '.[beam]')"
        raise ConfigError(f"Apache Beam is not installed: {install}")
    if "--uncertainty" in flags.beam_flags:  # which Beam would ignore
        raise ConfigError(
            "Pipelines do not estimate uncertainty: use cbsn denoise --uncertainty. "
            "Received: --uncertainty"
        )
    _quieten()
    for number in STOPPING:
        if callable(handler := signal.getsignal(number)):  # it may be set to be ignored
            signal.signal(number, functools.partial(_stop, handler))
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.inference.beam.job import denoise_with_beam
    from cbsn.inference.options import DenoiseOptions
    from cbsn.inference.stack_options import StackOptions

    options = vars(flags)
    of_stacks = StackOptions.pop(options)
    return denoise_with_beam(options=DenoiseOptions.pop(options), stacks=of_stacks, **options)


def _quieten() -> None:
    """Silences Beam's false alarms, unless --verbosity asks for another level.

    Beam reports through the root logger, for example, that clients for Google's cloud are missing,
    and its file sink warns when nothing has failed. Other warnings of Beam and cbsn stay.
    """
    root = logging.getLogger()
    if root.level == logging.WARNING:
        root.setLevel(logging.ERROR)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        logging.getLogger("apache_beam.io.filebasedsink").setLevel(logging.ERROR)


def _stop(handler: Callable[[int, Any], Any], number: int, frame: FrameType | None) -> None:
    """Handles Ctrl-C and the like, which Beam would report as an error of the step then running."""
    logging.disable()
    handler(number, frame)


class _Parser(Parser):
    """Keeps unknown flags for Beam, in `beam_flags`."""

    def parse_args(self, args=None, namespace=None):
        known, others = self.parse_known_args(args, namespace)
        known.beam_flags = others
        return known


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = _Parser(
        description="Denoises pictures and stacks in an Apache Beam pipeline, as cbsn denoise "
        "would. Workers share the planes of a stack, which has to lie, like its result, on a file "
        "system that all of them have mounted. What is done is skipped, unless its source is "
        "newer; so the same command continues a run that was stopped, or in which some pictures "
        "failed. Flags that are not listed here go to Beam, such as --runner (default: this "
        "process), --direct_num_workers, --project, --region and --temp_location.",
        common=("model_path", "inputs", "output", "max_megapixels", "strength", "format"),
        examples="""
  cbsn beam --model photo-large --input 'photos/**/*.jpg' --out denoised
""",
        allow_abbrev=False,
    )
    add = parser.add_argument
    model = (
        f"{MODEL}; a *.weights.h5 file; or the URL of a saved-model folder or a run's folder. "
        "Workers on other machines need a URL, or a path that exists there, too"
    )
    add_model(parser, model, required=True)
    pictures = (
        "pictures, stacks, folders or globs, local or URLs (gs://, s3://, hdfs:// …, as far as "
        "Beam's extras for them are installed; not for stacks); in quotes, ** is any depth"
    )
    add("--input", dest="inputs", metavar="GLOB", nargs="+", required=True, help=pictures)
    folder = (
        "folder for the denoised pictures, local or a URL. Failures are listed in DIR/failed, and "
        "make the exit status 1. DIR/run.json records the settings: another model, other settings "
        "or another --input need another folder"
    )
    add("--out", "--output", dest="output", metavar="DIR", required=True, help=folder)
    most = (
        "pictures that would take more memory than this many megapixels of 8-bit RGB fail without "
        "being decoded; 16 bits count twice, gray a third. 100 suits workers of 4 GB, but not "
        "--r3 and --self_ensemble together. Stacks of any size are taken"
    )
    add("--max_megapixels", type=float, metavar="N", default=100, help=most)
    add_denoiser(parser)
    add_files(parser, local=False)
    add_stacks(parser)
    return parser
