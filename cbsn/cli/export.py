"""Exports a trained model for servers and other runtimes. See `--help`."""

import argparse

from cbsn.cli.flags import MODEL, add_denoiser, add_gpu, new_parser


def main(flags: argparse.Namespace) -> None:
    """Exports the model."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.export.export import export
    from cbsn.inference.options import DenoiseOptions

    options = vars(flags)
    select_gpus(options.pop("gpu"), most=1)
    export(options=DenoiseOptions.pop(options), **options)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Exports a trained model: as a SavedModel for TensorFlow Serving, for LiteRT, for ONNX."
    )
    add = parser.add_argument
    add_gpu(parser)
    model = f"{MODEL}; or a *.weights.h5 file"
    add("--modelpath", dest="model_path", metavar="MODEL", required=True, help=model)
    out = "folder of the model, made if it is not there; its name is what a server calls it"
    add("--out", metavar="DIR", required=True, help=out)
    formats = (
        "with commas: saved_model (DIR/VERSION/, for TensorFlow and TensorFlow Serving), litert "
        "(DIR/model-VERSION.tflite and, with weights of half the size, "
        "DIR/model-VERSION-float16.tflite), onnx (DIR/model-VERSION.onnx)"
    )
    add("--format", dest="formats", metavar="NAMES", default="saved_model", help=formats)
    version = "number of this export, 1 or above; without the flag one more than the last in DIR"
    add("--version", type=int, metavar="N", help=version)
    add_denoiser(parser, here=False)
    larger = "larger PNG and JPEG files are refused by the SavedModel before they are decoded"
    add("--max_megapixels", type=float, default=134, help=larger)
    warmup = "requests that a server makes of the SavedModel when it loads it"
    add("--warmup", action=argparse.BooleanOptionalAction, default=True, help=warmup)
    return parser
