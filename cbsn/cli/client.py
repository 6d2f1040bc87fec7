"""Denoises pictures on a server that runs an exported model. See `--help`."""

import argparse
import functools
from pathlib import Path

from cbsn.cli.flags import add_files, add_out, add_strength
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.errors import ConfigError, in_one_line
from cbsn.importing import import_tensorflow
from cbsn.progress import say_fault


def main(flags: argparse.Namespace) -> int:
    """Sends the pictures and writes the results; returns 1 if some failed, or are stacks."""
    # Imported here: `--help` need not wait for these, nor `--rest` for TensorFlow.
    from cbsn.client.transport import RestTransport, Transport, denoise_remotely
    from cbsn.images.stacks.opening import is_stack
    from cbsn.inference.folder import denoise_each, plan_files
    from cbsn.inference.outputs import default_folder

    transport_class: type[Transport]
    if flags.transport == "rest":
        transport_class = RestTransport
    else:
        import_tensorflow(alone=True)  # which brings gRPC's messages
        from cbsn.client.grpc_transport import GrpcTransport

        transport_class = GrpcTransport
    names = ("model", "version", "timeout", "strength", "color_strength")
    options = {name: getattr(flags, name) for name in names}
    out = flags.save_path
    if out is None:
        out = default_folder(flags.image_paths)
    files = {"white": flags.white, "jpeg_quality": flags.jpeg_quality}
    with transport_class(flags.url, **options) as transport:
        outputs = plan_files(
            flags.image_paths, out, format=flags.format, recursive=flags.recursive, **files
        )
        stacks = [source for source in outputs if is_stack(source)]
        pictures = {each: target for each, target in outputs.items() if each not in stacks}
        if not pictures:
            raise ConfigError(_not_sent(stacks[0]))
        transport.check()
        denoise = functools.partial(denoise_remotely, transport)
        status = denoise_each(denoise, pictures, out, **files)
    for stack in stacks:
        say_fault(in_one_line(f"failed: {_not_sent(stack)}"))
    return 1 if stacks else status


def _not_sent(stack: Path) -> str:
    return (
        f"{stack}: it is a stack, and cbsn client sends pictures only. Use cbsn denoise, or send "
        "its planes as arrays, see the guide on serving."
    )


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises pictures on a server: TensorFlow Serving, or one with the same interface, with a "
        "model from cbsn export. Writes what cbsn denoise would write.",
        common=("image_paths", "save_path", "url", "transport", "model", "strength", "recursive"),
        examples="""
  cbsn client photos --url localhost:8501 --rest
  cbsn client 'photos/*.jpg' --url localhost:8500 --out clean      # gRPC
""",
    )
    add = parser.add_argument
    what = "folders, files, or globs in quotes (** is any depth)"
    add_input(parser, "image_paths", what)
    what = "address of the server; its port is usually 8500 for gRPC, 8501 for REST"
    add("--url", metavar="HOST:PORT", required=True, help=what)
    transports = parser.add_mutually_exclusive_group()
    for name, what in (
        ("grpc", "use gRPC, the default; it needs the extra cbsn[serving]"),
        ("rest", "use REST; slower for pictures of floats"),
    ):
        transports.add_argument(
            f"--{name}", dest="transport", action="store_const", const=name, help=what
        )
    add("--model", metavar="NAME", default="cbsn", help="name of the model on the server")
    add("--version", type=int, metavar="N", help="of the model (default: the newest)")
    what = "seconds to wait for each picture"
    add("--timeout", type=float, metavar="S", default=600, help=what)
    add_strength(parser, None)
    add_out(parser)
    add_files(parser)
    return parser
