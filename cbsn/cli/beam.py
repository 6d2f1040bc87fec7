"""Denoises pictures in an Apache Beam pipeline. See `--help`."""

import argparse
import importlib.util
import logging
import signal

from cbsn.cli.flags import MODEL, Parser, add_denoiser, add_files, new_parser
from cbsn.errors import ConfigError


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed."""
    if importlib.util.find_spec("apache_beam") is None:
        install = "pip install 'cbsn[beam]' (from a clone: pip install '.[beam]')"
        raise ConfigError(f"Apache Beam is not installed: {install}")
    _quieten()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be set to be ignored
        signal.signal(signal.SIGINT, _stop)
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.inference.beam.job import denoise_with_beam
    from cbsn.inference.options import DenoiseOptions

    options = vars(flags)
    return denoise_with_beam(options=DenoiseOptions.pop(options), **options)


def _quieten() -> None:
    """Silences Beam's false alarms, unless --verbosity asks for another level.

    Beam reports through the root logger, for example, that clients for Google's cloud are missing,
    and its file sink warns when nothing has failed. Other warnings of Beam and cbsn stay.
    """
    root = logging.getLogger()
    if root.level == logging.WARNING:
        root.setLevel(logging.ERROR)
        for name in ("apache_beam", "cbsn"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("apache_beam.io.filebasedsink").setLevel(logging.ERROR)


def _stop(signum: int, frame: object) -> None:
    """Handles Ctrl-C, which Beam would report in full as an error of the step then running."""
    logging.disable()
    raise KeyboardInterrupt


class _Parser(Parser):
    """Keeps unknown flags for Beam, in `beam_flags`."""

    def parse_args(self, args=None, namespace=None):
        known, others = self.parse_known_args(args, namespace)
        known.beam_flags = others
        return known


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = _Parser(
        description="Denoises pictures in an Apache Beam pipeline, as infer.py would. What is "
        "denoised already is left alone, unless its source is newer; so a run that was stopped, or "
        "in which some pictures failed, goes on with the same command. All flags that are not "
        "below go to Beam: --runner says where the pipeline runs (default: in this process), "
        "--direct_num_workers, --project, --region, --temp_location and so on how.",
        formatter_class=new_parser("").formatter_class,
        allow_abbrev=False,
    )
    add = parser.add_argument
    model = (
        f"{MODEL}; a *.weights.h5 file; or the URL of a saved-model folder, or of a run's. Workers "
        "on other machines need a URL, or a path that they have, too"
    )
    add("--modelpath", dest="model_path", metavar="MODEL", required=True, help=model)
    pictures = (
        "pictures, folders or globs, local or URLs (gs://, s3://, hdfs:// …, as far as Beam's "
        "extras for them are installed); in quotes, ** is any depth"
    )
    add("--input", dest="inputs", metavar="GLOB", nargs="+", required=True, help=pictures)
    folder = (
        "folder for the denoised pictures, local or a URL, made if it is not there. What failed, "
        "and why, is told in DIR/failed, and by exit status 1; DIR/run.json keeps what the results "
        "were made with: with another model, other settings or another --input, take another folder"
    )
    add("--output", metavar="DIR", required=True, help=folder)
    most = (
        "pictures that would take more memory than that many megapixels in 8-bit RGB are not "
        "decoded, but fail; 16 bits count twice, gray a third. 100 suit workers of 4 GB, but not "
        "--r3 and --self_ensemble together"
    )
    add("--max_megapixels", type=float, metavar="N", default=100, help=most)
    add_denoiser(parser)
    add_files(parser)
    return parser
