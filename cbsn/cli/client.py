"""Denoises pictures on a server that runs an exported model. See `--help`."""

import argparse
import functools

from cbsn.cli.flags import add_files, add_save_path, add_strength, import_tensorflow, new_parser


def main(flags: argparse.Namespace) -> int:
    """Sends the pictures and writes the results; returns 1 if some of them failed."""
    # Imported here: `--help` need not wait for these, nor `--rest` for TensorFlow.
    from cbsn.client.transport import RestTransport, Transport, denoise_remotely
    from cbsn.inference.folder import denoise_each, plan_files

    transport_class: type[Transport]
    if flags.transport == "rest":
        transport_class = RestTransport
    else:
        import_tensorflow()  # which brings gRPC's messages
        from cbsn.client.grpc_transport import GrpcTransport

        transport_class = GrpcTransport
    names = ("model", "version", "timeout", "strength", "color_strength")
    options = {name: getattr(flags, name) for name in names}
    with transport_class(flags.url, **options) as transport:
        outputs = plan_files(
            flags.image_paths, flags.save_path, format=flags.format, white=flags.white
        )
        transport.check()
        denoise = functools.partial(denoise_remotely, transport)
        return denoise_each(denoise, outputs, flags.save_path, white=flags.white)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises pictures on a server that has a model of export.py, TensorFlow Serving or one "
        "that speaks as it does, and writes what infer.py would have written."
    )
    add = parser.add_argument
    what = "pictures, folders or globs; in quotes, ** is any depth"
    add("image_paths", metavar="IMAGES", nargs="+", help=what)
    what = "of the server; usually its port is 8500 for gRPC, 8501 for REST"
    add("--url", metavar="HOST:PORT", required=True, help=what)
    transports = parser.add_mutually_exclusive_group()
    for name, what in (
        ("grpc", "ask by gRPC, as without the flag; it needs the extra cbsn[serving]"),
        ("rest", "ask by REST, in JSON; slower for pictures of floats"),
    ):
        transports.add_argument(
            f"--{name}", dest="transport", action="store_const", const=name, help=what
        )
    add("--model", metavar="NAME", default="cbsn", help="name of the model on the server")
    add("--version", type=int, metavar="N", help="of the model; without the flag the newest")
    what = "seconds to wait for each picture"
    add("--timeout", type=float, metavar="S", default=600, help=what)
    add_strength(parser, None)
    add_save_path(parser)
    add_files(parser)
    return parser
