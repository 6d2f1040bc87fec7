"""Exports a trained model for servers and other runtimes. See `--help`."""

import argparse
from typing import NoReturn

from cbsn.cli.flags import MODEL, add_denoiser, add_gpu, add_model
from cbsn.cli.parser import Parser


def main(flags: argparse.Namespace) -> None:
    """Exports the model."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.export.export import export
    from cbsn.inference.options import DenoiseOptions

    options = vars(flags)
    options["authors"] = options["authors"] or ()
    select_gpus(options.pop("gpu"), most=1)
    export(options=DenoiseOptions.pop(options), **options)


class _Parser(Parser):
    """Says what to do about a name whose words the shell has separated."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ")
        if words != message and not words.startswith("-"):
            message += "; a text of several words stands in quotes: --author 'Ada Lovelace'"
        super().error(message)


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = _Parser(
        description="Exports a trained model: as a SavedModel for TensorFlow Serving, for LiteRT, "
        "for ONNX, for the BioImage Model Zoo.",
        common=(
            *("model_path", "out", "formats", "version", "strength", "self_ensemble"),
            *("stack_channel", "authors", "sample"),
        ),
        examples="""
  cbsn export --model photo-large --out served/cbsn    # → served/cbsn/1, a SavedModel
  cbsn export --model checkpoints/holiday --out served/cbsn --format saved_model,litert,onnx
  cbsn export --model checkpoints/cells --out cells.zip --format bioimage --author "Ada Lovelace"
""",
    )
    add = parser.add_argument
    add_gpu(parser)
    add_model(parser, f"{MODEL}; or a *.weights.h5 file", required=True)
    out = (
        "folder of the model; its name is the model's name on a server. Or with --format bioimage "
        "alone, the file to write, NAME.zip"
    )
    add("--out", metavar="DIR", required=True, help=out)
    formats = (
        "separated by commas: saved_model (DIR/VERSION/, for TensorFlow and TensorFlow Serving), "
        "litert (DIR/model-VERSION.tflite and, with weights of half the size, "
        "DIR/model-VERSION-float16.tflite), onnx (DIR/model-VERSION.onnx), bioimage "
        "(DIR/model-VERSION.zip, a package for the BioImage Model Zoo, which other programs for "
        "microscopy read)"
    )
    add("--format", dest="formats", metavar="NAMES", default="saved_model", help=formats)
    version = "number of this export, 1 or above (default: one more than the last in DIR)"
    add("--version", type=int, metavar="N", help=version)
    add_denoiser(parser, here=False)
    larger = "size of PNG and JPEG files above which the SavedModel refuses to decode them"
    add("--max_megapixels", type=float, default=134, metavar="N", help=larger)
    channel = (
        "of a model that was trained on stacks of several channels: the channel whose planes the "
        "export denoises, counted from 0 (default: 0)"
    )
    add("--stack_channel", type=int, metavar="N", help=channel)
    author = (
        "with --format bioimage, who made the model: name, affiliation, ORCID and GitHub account, "
        "of which all but the name may be missing, in quotes: 'Ada Lovelace, University of London, "
        "@ada'; once for each author"
    )
    add("--author", dest="authors", metavar="NAME", action="append", help=author)
    terms = "with --format bioimage, the model's license, an SPDX identifier (default: Apache-2.0)"
    add("--license", metavar="ID", help=terms)
    sample = (
        "with --format bioimage, a noisy image of yours, whose middle becomes the test and the "
        "cover: a picture, or a stack if the model was trained on stacks (default: a simulated one)"
    )
    add("--sample", metavar="FILE", help=sample)
    axes = (
        "letters of the axes of the stack that --sample names, in the file's order, such as ZYX, "
        "if the file does not say"
    )
    add("--axes", metavar="AXES", help=axes)
    warmup = (
        "store requests that a server makes when it loads the SavedModel (default: if the extra "
        "serving is installed)"
    )
    add("--warmup", action=argparse.BooleanOptionalAction, default=None, help=warmup)
    return parser
