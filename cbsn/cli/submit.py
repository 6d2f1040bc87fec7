"""Denoises a benchmark's noisy pictures and writes what its site takes. See `--help`."""

import argparse
import functools
from typing import Any

from cbsn.cli.flags import MODEL, add_denoising, add_gpu, new_parser, run
from cbsn.errors import check_number

_LARGEST_SEED = 2**64 - 1

_ROUNDINGS = {"round": "round", "floor": "truncate"}
"""SIDD's, in the words of `Denoiser`; DND's crops are rounded after it."""


def main(flags: argparse.Namespace) -> None:
    """Makes the submission."""
    # TensorFlow comes with these; `--help` shall not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions
    from cbsn.value_range import value_range

    options = vars(flags)
    check_number("--seed", options["seed"], 0, _LARGEST_SEED)
    select_gpus(options.pop("gpu"), most=1)
    model_path = options.pop("model_path")
    # The benchmark's files are looked at before the model is loaded.
    make = {"sidd": _make_sidd, "dnd": _make_dnd}[options.pop("benchmark")]
    submission = make(options, model_path)
    rounding = _ROUNDINGS[options.get("rounding", "round")]
    denoiser = Denoiser.load(model_path, DenoiseOptions(**{**options, "rounding": rounding}))
    print(denoiser.choices, flush=True)
    model = {"path": model_path, "sha256": denoiser.sha256()}
    # A dark part is not to be taken for one of another value range.
    denoise = functools.partial(denoiser, white=value_range(submission.DTYPE))
    submission.run(denoise, settings=_settings(options, denoiser), model=model)


def _make_sidd(options: dict[str, Any], model_path: str) -> Any:
    """Takes from the flags what the denoiser does not."""
    from cbsn.evaluation.submit.sidd import SiddSubmission

    texts = {
        "MethodName": options.pop("method_name") or model_path,
        "Authors": options.pop("authors"),
        "PaperTitle": options.pop("paper_title"),
        "Venue": options.pop("venue"),
        "MachineSpecs": options.pop("machine_specs"),
    }
    taken = {name: options.pop(name) for name in ("source", "out", "resume", "layouts")}
    return SiddSubmission(**taken, texts=texts)


def _make_dnd(options: dict[str, Any], model_path: str) -> Any:
    """Takes from the flags what the denoiser does not."""
    from cbsn.evaluation.submit.dnd import DndSubmission

    taken = {name: options.pop(name) for name in ("source", "out", "resume", "rounding")}
    return DndSubmission(**taken)


def _settings(options: dict[str, Any], denoiser: Any) -> dict[str, Any]:
    """The denoiser's options, with what was chosen in place of `auto`."""
    from cbsn.inference.engines import choose_engine
    from cbsn.precision import choose_precision

    network = denoiser.network
    precision, _ = choose_precision(options["precision"])
    engine, _ = choose_engine(options["engine"], precision, has_loop=network.has_loop)
    r3 = denoiser.recipe.r3 if options["r3"] is None else options["r3"]
    settings = {**options, "precision": precision, "engine": engine, "r3": r3}
    if denoiser.strength.is_whole:  # as in submissions begun before there was such a setting
        for name in ("strength", "color_strength"):
            settings.pop(name, None)
    return settings


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises a benchmark's noisy pictures one by one and, when all are done, writes what its "
        "site takes."
    )
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="{sidd,dnd}", required=True)
    sidd = benchmarks.add_parser(
        "sidd",
        help="blocks of SIDD's benchmark, sRGB",
        description="Denoises the blocks of SIDD's benchmark to OUT/blocks, and writes OUT/"
        "SubmitSrgb.mat of them.",
        formatter_class=parser.formatter_class,
    )
    _add_shared(sidd, "BenchmarkNoisyBlocksSrgb.mat, or the folder that holds it")
    sidd.add_argument(
        "--rounding",
        choices=("round", "floor"),
        default="round",
        help="to 8-bit pixels; floor is what the original C-BSN code does",
    )
    sidd.add_argument(
        "--layout",
        dest="layouts",
        metavar="LAYOUTS",
        default="blocks",
        help="of the submission, with commas between: blocks (SubmitSrgb.mat with one array), csv "
        "(SubmitSrgb.csv, for Kaggle), kit (kit/SubmitSrgb.mat as the MATLAB kit writes it, with "
        "the time per megapixel)",
    )
    kit = sidd.add_argument_group("texts of --layout kit (those not given are empty)")
    kit.add_argument("--method_name", metavar="TEXT", help="without the flag what --modelpath says")
    for name in ("authors", "paper_title", "venue", "machine_specs"):
        kit.add_argument(f"--{name}", metavar="TEXT")
    dnd = benchmarks.add_parser(
        "dnd",
        help="crops of the Darmstadt Noise Dataset, sRGB",
        description="Denoises the crops of the Darmstadt Noise Dataset (DND) to OUT/crops, and "
        "bundles them; the content of OUT/bundled is to be submitted.",
        formatter_class=parser.formatter_class,
    )
    _add_shared(dnd, "the folder dnd_2017, or the one that holds it")
    dnd.add_argument(
        "--rounding",
        choices=("none", "round", "floor"),
        default="none",
        help="to 8-bit levels; none: the denoiser's floats as they are",
    )
    return parser


def _add_shared(parser: argparse.ArgumentParser, source: str) -> None:
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add_gpu(parser)
    add(
        "--modelpath",
        dest="model_path",
        metavar="MODEL",
        required=True,
        default=unset,
        help=MODEL,
    )
    add("--source", metavar="PATH", required=True, default=unset, help=source)
    add(
        "--out",
        metavar="DIR",
        required=True,
        default=unset,
        help="folder for the submission, made if it is not there",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the submission in --out: what is there and whole is kept",
    )
    add("--seed", type=int, default=0, help="of the random choices of --r3")
    add_denoising(parser)


def command() -> None:
    """Runs the command."""
    run(main, make_parser())
