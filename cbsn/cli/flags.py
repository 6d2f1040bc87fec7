"""Code that the commands share: argparse flags under absl, and errors without tracebacks."""

import argparse
import codecs
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags, logging

from cbsn.errors import (
    LARGEST,
    LARGEST_HOLE,
    LARGEST_SEED,
    CbsnError,
    CbsnWarning,
    TrainingStopped,
    check_hole,
    in_one_line,
    plain_reason,
)
from cbsn.importing import import_tensorflow
from cbsn.progress import say_fault, shown
from cbsn.signals import Ended, ending_like_ctrl_c

# What `--model` takes.
MODEL = (
    "a shipped model (photo-large, photo), a run's folder, a saved-model folder, or the prefix of "
    "an original TensorFlow 1.15 checkpoint"
)

_NORMALIZE = (
    "what a network sees as 0 and 1 in a stack: deviation (mean, and mean + standard deviation), "
    "percentile, range, dtype, or two values such as 100,4095; model: the values of the training; "
    "auto: model if it was trained on stacks, else range (RGB in integers: as photographs)"
)

# Replacements for characters that the terminal or the output file cannot encode.
_READABLE = {"σ": "sigma", "×": "x", "→": "->", "…": "...", "–": "-", "−": "-", "≥": ">="}


def add_gpu(parser: argparse._ActionsContainer, *, several: bool = False) -> None:
    """Adds `--gpu`; `several` says whether the command computes on several GPUs."""
    one = (
        "number of the GPU to use; of several (0,1), the lowest (default: the first GPU, or the "
        "CPU if there is none)"
    )
    all_ = (
        "GPUs to use, by number (0 or 0,1), or all of them without a number; they share each batch "
        "(default: all GPUs, or the CPU if there is none)"
    )
    parser.add_argument("--gpu", nargs="?", const="all", metavar="N", help=all_ if several else one)


def add_model(parser: argparse._ActionsContainer, help: str = MODEL, **options: Any) -> None:
    """Adds `--model`."""
    parser.add_argument(
        "--model", "--modelpath", dest="model_path", metavar="MODEL", help=help, **options
    )


def add_denoiser(parser: argparse._ActionsContainer, *, here: bool = True) -> None:
    """Adds all of `cbsn.inference.options.DenoiseOptions`; for `here` see `add_denoising`."""
    add, size = parser.add_argument, _whole_number(1)
    # Facts that a `*.weights.h5` file does not hold.
    only = "; only for a *.weights.h5 file"
    add("--recipe", metavar="NAME", help=f"method that trained the network (cbsn){only}")
    add("--channels", "--channel", type=size, metavar="C", help=f"channels of the network{only}")
    modules = f"dilated modules in each branch{only}"
    add("--modules", "--num_block", type=size, metavar="N", help=modules)
    add_denoising(parser, here=here)
    what = "how results become integers; truncate is what the C-BSN authors' code does"
    add("--rounding", choices=("round", "truncate"), default="round", help=what)
    seed = _whole_number(0, LARGEST_SEED)
    add("--seed", type=seed, default=0, help="seed of the random choices of --r3")


def add_denoising(parser: argparse._ActionsContainer, *, here: bool = True) -> None:
    """Adds the flags for how to denoise, most of `cbsn.inference.options.DenoiseOptions`.

    `here` says whether this machine denoises. If it does not, there is no `--engine`, and
    `--precision` cannot be left to the hardware.
    """
    add = parser.add_argument
    refine = (
        "refine by random replacement (R3): eight more passes of the blind network (default: as "
        "the recipe has it; apbsn, ssbsn: yes; cbsn: no; U-Nets cannot)"
    )
    add("--r3", action=argparse.BooleanOptionalAction, default=None, help=refine)
    hole = (
        "width in pixels, odd, of the hole around each pixel that the network does not see; 0: "
        "none (only for models of tmbsn and cbsn-hole; default: as the model has it)"
    )
    add("--hole", type=_hole, metavar="N", help=hole)
    eight = "average the results of the picture's eight orientations; takes eight times as long"
    add("--self_ensemble", action="store_true", help=eight)
    add_strength(parser, 1.0)
    add_computing(parser, here=here)


def add_computing(parser: argparse._ActionsContainer, *, here: bool = True) -> None:
    """Adds `--tile`, `--precision` and, if this machine denoises (`here`), `--engine`."""
    add = parser.add_argument
    tile = (
        "how much is denoised at a time: auto, the side of a square in pixels (of a cube, of "
        "volumes), or 0 for the whole picture. Small tiles need less memory. The result is the "
        "same, except for ssbsn and n2n-resunet, which see only the tile and its rim"
    )
    add("--tile", type=_tile, default="auto", metavar="SIDE", help=tile)
    precisions = "float32, mixed_bfloat16 or mixed_float16"
    if not here:
        known = ("float32", "mixed_bfloat16", "mixed_float16")
        what = f"{precisions}; take what the hardware that will denoise supports"
        add("--precision", choices=known, default="float32", metavar="P", help=what)
        return
    auto = (
        f"{precisions}; auto: bfloat16 where the hardware supports it, which changes some pixels "
        "by one level; float16 on GPUs of compute capability 7; else float32"
    )
    add("--precision", default="auto", metavar="P", help=auto)
    what = (
        "what computes: tensorflow, openvino, onnxruntime, or onnxruntime-cuda, -directml, "
        "-coreml, -webgpu, -rocm, -migraphx for GPUs; auto: the fastest on this machine of those "
        "that are installed, measured once, when there is much to denoise; auto!: measured anew"
    )
    add("--engine", default="auto", metavar="E", help=what)


def add_strength(parser: argparse._ActionsContainer, default: float | None) -> None:
    """Adds `--strength` and `--color_strength`; the default is None where the server has one."""
    add = parser.add_argument
    what = "share of the noise to remove, from 0 (nothing) to 1 (all that the network finds)"
    if default is None:
        what += "; without both flags, as the model was exported; with only the other one, 1"
    add("--strength", type=fraction, default=default, metavar="S", help=what)
    add(
        "--color_strength",
        type=fraction,
        metavar="S",
        help="the same for colour; --strength is then for brightness. --strength 0.6 "
        "--color_strength 1 keeps some grain, without its colours (default: --strength)",
    )


def add_out(parser: argparse._ActionsContainer) -> None:
    """Adds `--out`, the folder for the results."""
    what = "folder for the results (default: denoised, next to the folder or pictures given)"
    parser.add_argument("--out", "--savepath", dest="save_path", metavar="DIR", help=what)


def add_files(parser: argparse._ActionsContainer, *, local: bool = True) -> None:
    """Adds the flags for how picture files are found (if `local`), read and written."""
    add = parser.add_argument
    if local:
        what = "also take pictures in sub-folders, and keep the folder tree"
        add("--recursive", action="store_true", help=what)
    formats = ("auto", "same", "png", "jpeg", "tiff", "webp", "bmp", "zarr")
    what = (
        "format of the results; auto: the source's, but PNG for JPEG; same: JPEG stays JPEG; "
        "stacks are written as TIFF (tiff; OME-TIFF unless they are TIFF already) or as OME-Zarr "
        "(zarr)"
    )
    add("--format", choices=formats, default="auto", help=what)
    quality = _whole_number(1, 100)
    what = "quality of JPEG results, from 1 to 100"
    add("--jpeg_quality", type=quality, default=95, metavar="Q", help=what)
    add_white(parser)


def add_white(parser: argparse._ActionsContainer) -> None:
    """Adds `--white`; see `cbsn.images.image_files.read_picture`."""
    what = (
        "value of white in the files, such as 4095 for 12 bits (default: 255 in 8-bit files; in "
        "16-bit files the fewest of 2, 4, … 16 bits that hold the picture's values; 1 for floats "
        "in [0, 1], else their highest value)"
    )
    parser.add_argument("--white", type=float, metavar="N", help=what)


def add_stacks(parser: argparse._ActionsContainer) -> None:
    """Adds all of `cbsn.inference.stack_options.StackOptions`."""
    add = parser.add_argument
    add_axes(parser)
    add("--roi", metavar="R", help="rows and columns of a stack, such as 100:600,200:700")
    add_normalize(parser)
    what = "dtype of a stack's result, without rescaling; same: the source's"
    add("--dtype", choices=("same", "uint8", "uint16", "float32"), default="same", help=what)


def add_axes(parser: argparse._ActionsContainer) -> None:
    """Adds `--axes`, `--select` and `--nan`, for reading stacks."""
    add = parser.add_argument
    what = (
        "axes of the stacks, in the files' order: letters of T (time), Z, C (channel), Y, X, S "
        "(red, green, blue), for files that do not say (default: pages are frames in time); a TIFF "
        "file of one plane, or whose planes were written as colours, is a stack by this"
    )
    add("--axes", metavar="AXES", help=what)
    what = "planes of the stacks to take, counted from 0, such as t=0:10,c=1 (default: all)"
    add("--select", metavar="PLANES", help=what)
    what = "NaN and infinity in stacks: refuse such files, or fill them from their neighbours"
    add("--nan", choices=("refuse", "fill"), default="refuse", help=what)


def add_repair(parser: argparse._ActionsContainer) -> None:
    """Adds `--repair`; see `cbsn.noise.repair.parse_repairs`."""
    what = (
        "repair first: pixels (hot, dead and stuck ones, which are the same in all planes; of a "
        "picture, isolated outliers), rows or columns (the offset that each has), or several of "
        "them, such as pixels,rows (default: nothing)"
    )
    parser.add_argument("--repair", metavar="WHAT", help=what)


def add_normalize(parser: argparse._ActionsContainer, help: str = _NORMALIZE) -> None:
    """Adds `--normalize`; see `cbsn.images.stacks.scaling.parse_scaling`."""
    parser.add_argument("--normalize", metavar="HOW", default="auto", help=help)


def add_noise(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds `--noise`, `--noise_sigma` and `--noise_peak`; `what` says what the noise is for."""
    add = parser.add_argument
    kinds = f"{what}: gaussian, poisson, poisson-gaussian or camera"
    add("--noise", metavar="KIND", help=kinds)
    sigma = (
        "standard deviation of the Gaussian noise, or of the camera's read noise, in 8-bit "
        "levels: 25, or a range such as 5-50 (gaussian: 25, poisson-gaussian: 5, camera: 5.1)"
    )
    add("--noise_sigma", metavar="SIGMA", help=sigma)
    peak = (
        "photons of a white pixel: 30, or a range such as 10-100 (poisson, "
        "poisson-gaussian: 30, camera: 100)"
    )
    add("--noise_peak", metavar="PHOTONS", help=peak)


def _hole(text: str) -> int:
    with contextlib.suppress(ValueError):
        check_hole("--hole", int(text))
        return int(text)
    what = f"an odd width in pixels, up to {LARGEST_HOLE}, or 0 for no hole"
    raise argparse.ArgumentTypeError(f"takes {what}. Received: {text}")


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


def start_tensorflow() -> None:
    """Imports TensorFlow for a command. Raises a `CbsnError` if it cannot be imported."""
    try:
        import_tensorflow(alone=True)
    except (ImportError, MemoryError) as error:
        raise CbsnError(
            f"TensorFlow cannot be imported ({plain_reason(error)}). It needs 1 GB of memory or "
            "more; if there is enough, install it again in a new virtual environment."
        ) from error


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    *,
    tensorflow: bool = True,
) -> None:
    """Parses the flags, runs `main`, and exits with the status it returns, None meaning 0.

    A `CbsnError` is printed without a traceback, most of them on one line, and exits with its
    status. So is an error of the system, such as a denied permission, with status 2. Ctrl-C exits
    with 130, and other signals that end a process do so as Ctrl-C does. Each `CbsnWarning` is
    printed once, on a line that begins with `note:`. Characters that the output cannot encode are
    replaced. If `main` needs TensorFlow, it is imported after the flags are parsed, so that
    `--help` and mistakes are answered at once.
    """

    def guarded(arguments: argparse.Namespace) -> int:
        try:
            with ending_like_ctrl_c():
                if tensorflow:
                    start_tensorflow()
                with shown(), _shown_notes():
                    return main(arguments) or 0
        except TrainingStopped as stopped:
            print(stopped)
            return stopped.status
        except CbsnError as error:
            lines = map(in_one_line, str(error).split("\n"))  # a few errors have several
            print("error:", "\n".join(lines), file=sys.stderr)
            return error.status
        except BrokenPipeError:  # such as of `cbsn models | head`
            # Python would flush what is left, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            if error.errno is None:  # not the system's: a bug that a library met
                raise
            names = [os.fsdecode(n) for n in (error.filename, error.filename2) if n is not None]
            reason = ": ".join([*names, error.strerror or str(error)])
            print(f"error: {in_one_line(reason)}", file=sys.stderr)
            return 2
        except Ended as signal:
            print(f"ended by {signal}", file=sys.stderr)
            return signal.status
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
    told = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest, **options) -> None:
            if not issubclass(category, CbsnWarning):
                others(message, category, *rest, **options)
            elif str(message) not in told:
                told.add(str(message))
                say_fault(f"note: {in_one_line(str(message))}")

        warnings.showwarning = show
        warnings.filterwarnings("always", category=CbsnWarning)
        yield
