"""Denoises a benchmark's noisy pictures and writes the files for its site. See `--help`."""

import argparse
import functools
from typing import TYPE_CHECKING

from cbsn.cli.flags import add_denoising, add_gpu, add_model
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.errors import LARGEST_SEED, ConfigError, check_number

if TYPE_CHECKING:
    from cbsn.evaluation.submit.submission import Submission


_TEXTS = ("method_name", "authors", "paper_title", "venue", "machine_specs")  # of --layout kit


def main(flags: argparse.Namespace) -> None:
    """Makes the submission."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions
    from cbsn.value_range import value_range

    check_number("--seed", flags.seed, 0, LARGEST_SEED, whole=True)
    select_gpus(flags.gpu, most=1)
    # Checks the benchmark's files before the model is loaded.
    submission = _submission(flags)
    # DND's crops are rounded after denoising.
    floors = flags.benchmark == "sidd" and flags.rounding == "floor"
    options = DenoiseOptions.pop({**vars(flags), "rounding": "truncate" if floors else "round"})
    denoiser = Denoiser.load(flags.model_path, options)
    print(denoiser.choices, flush=True)
    settings = {
        "rounding": flags.rounding,
        "seed": options.seed,
        "r3": denoiser.r3,
        "self_ensemble": options.self_ensemble,
        "tile": options.tile,
        "precision": denoiser.network.dtype_policy.name,
        "engine": denoiser.engine,
    }
    if not denoiser.strength.is_whole:  # otherwise omitted, as before these flags existed
        settings["strength"] = options.strength
        settings["color_strength"] = options.color_strength
    model = {"path": flags.model_path, "sha256": denoiser.sha256()}
    # Stated, so that a dark part is not mistaken for one with a smaller value range.
    denoise = functools.partial(denoiser, white=value_range(submission.DTYPE))
    submission.run(denoise, settings=settings, model=model)


def _submission(flags: argparse.Namespace) -> "Submission":
    from cbsn.evaluation.submit.benchmarks import DndSubmission, SiddSubmission

    taken = {"source": flags.source, "out": flags.out, "resume": flags.resume}
    if flags.benchmark == "dnd":
        return DndSubmission(**taken, rounding=flags.rounding)
    given = [f"--{name}" for name in _TEXTS if getattr(flags, name) is not None]
    if given and "kit" not in [name.strip() for name in flags.layouts.split(",")]:
        raise ConfigError(
            f"{given[0]} is written by --layout kit only: give that, too, or omit the text. "
            f"Received: {' '.join(given)} --layout {flags.layouts}"
        )
    texts = {
        "MethodName": flags.method_name or flags.model_path,
        "Authors": flags.authors,
        "PaperTitle": flags.paper_title,
        "Venue": flags.venue,
        "MachineSpecs": flags.machine_specs,
    }
    return SiddSubmission(**taken, layouts=flags.layouts, texts=texts)


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises a benchmark's noisy pictures one by one and, when all are done, writes what its "
        "site takes."
    )
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="{sidd,dnd}", required=True)

    def add_benchmark(name: str, what: str, does: str, source: str) -> Parser:
        common = ("source", "model_path", "out", "resume", "layouts", "self_ensemble", "gpu")
        parts = benchmarks.add_parser(name, help=what, description=does, common=common)
        add = parts.add_argument
        resume = "continue the submission in --out, and keep what is there and whole"
        add_gpu(parts)
        add_model(parts, required=True)
        add_input(parts, "source", source, "--source", metavar="PATH", several=False)
        add("--out", metavar="DIR", required=True, help="folder for the submission")
        add("--resume", action="store_true", help=resume)
        add("--seed", type=int, default=0, help="of the random choices of --r3")
        add_denoising(parts)
        return parts

    sidd = add_benchmark(
        "sidd",
        "blocks of SIDD's benchmark, sRGB",
        "Denoises the blocks of SIDD's benchmark to OUT/blocks, and writes OUT/SubmitSrgb.mat of "
        "them.",
        "BenchmarkNoisyBlocksSrgb.mat, or the folder that holds it",
    )
    rounding = "to 8-bit pixels; floor is what the original C-BSN code does"
    sidd.add_argument("--rounding", choices=("round", "floor"), default="round", help=rounding)
    sidd.add_argument(
        "--layout",
        dest="layouts",
        metavar="LAYOUTS",
        default="blocks",
        help="forms of the submission, separated by commas: blocks (SubmitSrgb.mat with one "
        "array), csv (SubmitSrgb.csv, for Kaggle), kit (kit/SubmitSrgb.mat as the MATLAB kit "
        "writes it, with the time per megapixel)",
    )
    kit = sidd.add_argument_group("texts of --layout kit (those not given are empty)")
    kit.add_argument("--method_name", metavar="TEXT", help="(default: what --model says)")
    for name in _TEXTS[1:]:
        kit.add_argument(f"--{name}", metavar="TEXT")

    dnd = add_benchmark(
        "dnd",
        "crops of the Darmstadt Noise Dataset, sRGB",
        "Denoises the crops of the Darmstadt Noise Dataset (DND) to OUT/crops, and bundles them; "
        "the content of OUT/bundled is to be submitted.",
        "the folder dnd_2017, or the one that holds it",
    )
    rounding = "to 8-bit levels; none: the denoiser's floats as they are"
    choices = ("none", "round", "floor")
    dnd.add_argument("--rounding", choices=choices, default="none", help=rounding)
    return parser
