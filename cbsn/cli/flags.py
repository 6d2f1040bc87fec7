"""Code that the commands share: argparse flags under absl, and errors without tracebacks."""

import argparse
import codecs
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

from absl import app, flags, logging
from absl.flags import argparse_flags

from cbsn.errors import LARGEST, LARGEST_SEED, CbsnError, CbsnWarning, TrainingStopped, in_one_line
from cbsn.files import captured_stderr

# What `--modelpath` takes.
MODEL = (
    "a run's folder, a saved-model folder, the name of a shipped model, or the prefix of an "
    "original TensorFlow 1.15 checkpoint"
)

# Replacements for characters that the terminal or the output file cannot encode.
_READABLE = {"σ": "sigma", "×": "x", "→": "->", "…": "...", "–": "-", "−": "-", "≥": ">="}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults in `--help`, except None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse_flags.ArgumentParser):
    """Reports mistakes in the flags on one line, as `run` does for any error."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and ends the command."""
        self.exit(2, f"error: {message.rstrip('.')}. See {self.prog} --help\n")


def new_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser whose `--help` shows the defaults."""
    return Parser(description=description, formatter_class=_HelpFormatter)


def add_gpu(parser: argparse._ActionsContainer, *, several: bool = False) -> None:
    """Adds `--gpu`; `several` says whether the command computes on several GPUs."""
    one = (
        "the GPU to use, by its number: 0 is the first. One GPU does all the work: of several "
        "numbers (0,1) the lowest is taken, and the first GPU where no number or no flag is given; "
        "without a GPU and the flag the CPU is used"
    )
    all_ = (
        "GPUs to use: alone all of them, with numbers (0 or 0,1) these; each batch is shared out "
        "over them; without the flag all that there are, or the CPU"
    )
    parser.add_argument("--gpu", nargs="?", const="all", help=all_ if several else one)


def add_denoiser(parser: argparse._ActionsContainer, *, here: bool = True) -> None:
    """Adds all of `cbsn.inference.options.DenoiseOptions`; for `here` see `add_denoising`."""
    add, size = parser.add_argument, _whole_number(1)
    # Facts that a `*.weights.h5` file does not hold.
    only = "; only a *.weights.h5 file needs it"
    trained = f"method that the network was trained by (cbsn){only}"
    add("--recipe", dest="recipe_name", metavar="NAME", help=trained)
    add("--channel", type=size, metavar="C", help=f"channels of the network{only}")
    add("--num_block", type=size, metavar="N", help=f"dilated modules in each branch{only}")
    add_denoising(parser, here=here)
    what = "to integer pixels; truncate is what the original code does"
    add("--rounding", choices=("round", "truncate"), default="round", help=what)
    seed = _whole_number(0, LARGEST_SEED)
    add("--seed", type=seed, default=0, help="of the random choices of --r3")


def add_denoising(parser: argparse._ActionsContainer, *, here: bool = True) -> None:
    """Adds the flags for how to denoise, most of `cbsn.inference.options.DenoiseOptions`.

    `here` says whether this machine denoises. If it does not, there is no `--engine`, and
    `--precision` cannot be left to the hardware.
    """
    add = parser.add_argument
    refine = (
        "refine by random replacement (R3): eight more passes of the blind network; without "
        "the flag as the recipe has it (apbsn, ssbsn: yes; cbsn: no; U-Nets cannot)"
    )
    add("--r3", action=argparse.BooleanOptionalAction, default=None, help=refine)
    eight = "denoise each picture in its eight orientations and average: eight times as long"
    add("--self_ensemble", action="store_true", help=eight)
    add_strength(parser, 1.0)
    tile = (
        "how much is denoised at a time: auto, the side of a square in pixels, or 0 for the "
        "whole picture; smaller takes less memory. The results are equal, but for ssbsn and "
        "n2n-resunet, parts of which see the tile and its rim, and no more"
    )
    add("--tile", type=_tile, default="auto", help=tile)
    precisions = "float32, mixed_bfloat16 or mixed_float16"
    if not here:
        known = ("float32", "mixed_bfloat16", "mixed_float16")
        what = f"{precisions}: as the hardware has it that will denoise"
        add("--precision", choices=known, default="float32", metavar="P", help=what)
        return
    auto = (
        f"{precisions}; auto: bfloat16 where the hardware has it, which changes a pixel by a "
        "level here and there; float16 on GPUs of compute capability 7"
    )
    add("--precision", default="auto", help=auto)
    engines = ("auto", "tensorflow", "openvino")
    what = "what computes; openvino: on the CPU, if it is installed"
    add("--engine", choices=engines, default="auto", help=what)


def add_strength(parser: argparse._ActionsContainer, default: float | None) -> None:
    """Adds `--strength` and `--color_strength`; the default is None where the server has one."""
    add = parser.add_argument
    what = "how much of what the network would remove is removed, from 0 (nothing) to 1 (all)"
    if default is None:
        what += "; without both flags as the model was exported; with the other one only, 1"
    add("--strength", type=fraction, default=default, metavar="S", help=what)
    add(
        "--color_strength",
        type=fraction,
        metavar="S",
        help="the same for colour, --strength being for brightness then; without the flag as "
        "--strength. Less strength than color_strength keeps fine grain without its colours",
    )


def add_save_path(parser: argparse._ActionsContainer) -> None:
    """Adds `--savepath`, the folder for the results."""
    what = "folder for the denoised pictures, made if it is not there"
    parser.add_argument("--savepath", dest="save_path", metavar="DIR", required=True, help=what)


def add_files(parser: argparse._ActionsContainer) -> None:
    """Adds `--white` and `--format`: how picture files are read and written."""
    add_white(parser)
    formats = ("auto", "png", "jpeg", "tiff", "webp", "bmp")
    what = "of the results; auto keeps the source's, but writes PNG where that is JPEG"
    parser.add_argument("--format", choices=formats, default="auto", help=what)


def add_white(parser: argparse._ActionsContainer) -> None:
    """Adds `--white`; see `cbsn.images.image_files.read_picture`."""
    what = (
        "value of white in the files, such as 4095 for 12 bits; without the flag as the "
        "values of each picture show it: the fewest of 2, 4, … 16 bits that hold them in 16-bit "
        "files; 255 in 8-bit files; 1 for floats in [0, 1], else their highest value"
    )
    parser.add_argument("--white", type=float, metavar="N", help=what)


def add_noise(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds `--noise`, `--noise_sigma` and `--noise_peak`; `what` says what the noise is for."""
    add = parser.add_argument
    add("--noise", help=f"{what}: gaussian, poisson, poisson-gaussian or camera")
    sigma = (
        "standard deviation of the Gaussian noise, or of the camera's read noise, in 8-bit "
        "levels: 25, or a range such as 5-50 (gaussian: 25, poisson-gaussian: 5, camera: 5.1)"
    )
    add("--noise_sigma", help=sigma)
    peak = (
        "photons of a white pixel: 30, or a range such as 10-100 (poisson, "
        "poisson-gaussian: 30, camera: 100)"
    )
    add("--noise_peak", help=peak)


def _whole_number(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """Returns an argparse type: an int from `least` to `most`."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if least <= int(text) <= most:
                return int(text)
        limits = f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"takes a whole number {limits}. Received: {text}")

    return parse


def fraction(text: str) -> float:
    """Parses a float from 0 to 1, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"takes a number from 0 to 1. Received: {text}")


def _tile(text: str) -> str:
    """Checks `--tile` for argparse."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        if text != "auto":
            _whole_number(0)(text)
        return text
    raise argparse.ArgumentTypeError(
        "tile is auto, the side of the tiles in pixels, or 0 for the whole picture at once. "
        f"Received: {text}"
    )


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    *,
    tensorflow: bool = True,
) -> None:
    """Parses the flags, runs `main`, and exits with the status it returns, None meaning 0.

    A `CbsnError` is printed without a traceback, most of them on one line, and exits with its
    status. So is an error of the system, such as a denied permission, with status 2. Ctrl-C exits
    with 130. Each `CbsnWarning` is printed once, on a line that begins with `note:`. Characters
    that the output cannot encode are replaced. If `main` needs TensorFlow, it is imported after the
    flags are parsed, so that `--help` and mistakes are answered at once.
    """

    def guarded(arguments: argparse.Namespace) -> int:
        try:
            if tensorflow:
                import_tensorflow()
            with _shown_notes():
                return main(arguments) or 0
        except TrainingStopped as stopped:
            print(stopped)
            return stopped.status
        except CbsnError as error:
            lines = map(in_one_line, str(error).split("\n"))  # a few errors have several
            print("error:", "\n".join(lines), file=sys.stderr)
            return error.status
        except OSError as error:
            if error.errno is None:  # not the system's: a bug that a library met
                raise
            names = [os.fsdecode(n) for n in (error.filename, error.filename2) if n is not None]
            reason = ": ".join([*names, error.strerror or str(error)])
            print(f"error: {in_one_line(reason)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    _make_output_encodable()
    # TensorFlow logs every checkpoint at the default level; --verbosity restores that.
    flags.FLAGS.verbosity = logging.WARNING  # type: ignore[assignment]
    app.run(guarded, flags_parser=lambda argv: parser.parse_args(argv[1:]))


def _make_output_encodable() -> None:
    """Makes stdout and stderr replace characters that they cannot encode.

    On Windows, output to a file or a pipe is not UTF-8. And file names may hold any bytes, some of
    which Python represents as surrogates, which no encoding can write.
    """
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # others, such as a notebook's, take any text
            stream.reconfigure(errors="readable")


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Replaces one character that cannot be encoded."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    escaped = character.encode("ascii", "backslashreplace").decode()
    return _READABLE.get(character, escaped), error.start + 1


@contextlib.contextmanager
def _shown_notes() -> Iterator[None]:
    """Shows each `CbsnWarning` in the block once, on one line."""
    shown = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest, **options) -> None:
            if not issubclass(category, CbsnWarning):
                others(message, category, *rest, **options)
            elif str(message) not in shown:
                from tqdm import tqdm

                shown.add(str(message))
                # Not print, which would break into a progress bar.
                tqdm.write(f"note: {in_one_line(str(message))}", file=sys.stderr)

        warnings.showwarning = show
        warnings.filterwarnings("always", category=CbsnWarning)
        yield


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up chatter, unless a log level was asked for."""
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow writes some lines straight to the descriptor, before any log level applies.
    with captured_stderr() if quiet else contextlib.nullcontext():
        import tensorflow as tf

        tf.config.list_physical_devices()
