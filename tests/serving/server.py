"""A stand-in for TensorFlow Serving, for trying and for tests; not for production. See `--help`."""

import argparse
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cbsn.cli.flags import run
from cbsn.cli.parser import new_parser
from cbsn.errors import ConfigError, check_number

_GRPC_THREADS = 4
_POLL_SECONDS = 0.05  # how long the end of the server may have to wait


class StandInServer:
    """Serves a SavedModel by gRPC and REST as TensorFlow Serving does, with TensorFlow alone.

    The arguments are the flags of the command; port 0 is a free one, which `port` and
    `rest_api_port` tell afterwards.

    Example:
        >>> with StandInServer("serving/cbsn") as server:
        ...     print(server.port, server.rest_api_port)
    """

    def __init__(
        self,
        model_base_path: str | Path,
        model_name: str = "cbsn",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_api_port: int = 0,
    ):
        # `--help` must not wait for these.
        from cbsn.client.grpc_transport import UNLIMITED, grpc
        from cbsn.client.transport import check_name
        from tests.serving.grpc_service import GrpcService, prediction_service_pb2_grpc
        from tests.serving.rest_service import RestServer
        from tests.serving.served_model import ServedModel

        for flag, number in (("--port", port), ("--rest_api_port", rest_api_port)):
            check_number(flag, number, 0, 65535)
        check_name(model_name, "--model_name")
        self.model = ServedModel(model_base_path, model_name)
        service = GrpcService(self.model)
        service.warm_up()
        try:
            self._rest = RestServer(host, rest_api_port, self.model)
        except (OSError, TypeError, ValueError) as error:  # also of what is no name of a host
            raise _no_port("--rest_api_port", rest_api_port, host) from error
        self.rest_api_port = self._rest.server_address[1]
        # Otherwise a second server would share the port, and get every other request.
        options = [*UNLIMITED, ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(ThreadPoolExecutor(_GRPC_THREADS), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, self._grpc)
        try:
            self.port = self._grpc.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            self._rest.server_close()
            raise _no_port("--port", port, host) from error
        self._thread = threading.Thread(
            target=self._rest.serve_forever, args=(_POLL_SECONDS,), daemon=True
        )

    def __enter__(self) -> "StandInServer":
        self._grpc.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rest.shutdown()
        self._rest.server_close()
        self._grpc.stop(grace=None).wait()


def _no_port(flag: str, port: int, host: str) -> ConfigError:
    return ConfigError(
        "The server cannot listen there: the port is taken or not allowed, or --host is another "
        f"machine's; {flag} 0 takes a free port. Received: {flag} {port} --host {host}"
    )


def main(flags: argparse.Namespace) -> None:
    """Serves until it is interrupted."""
    with StandInServer(**vars(flags)) as server:
        print(
            f"Serving {server.model.name} version {server.model.version} from "
            f"{server.model.folder}: gRPC at {flags.host}:{server.port}, REST at "
            f"{flags.host}:{server.rest_api_port}. Ctrl-C ends it.",
            flush=True,
        )
        threading.Event().wait()


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Serves a model of export.py as TensorFlow Serving does, by gRPC and REST. It stands in "
        "for that for trying and for tests, and is NOT for production: one model in one version, "
        "no batching, no limits, no encryption."
    )
    parser.prog = "python -m tests.serving.server"
    add = parser.add_argument
    what = "folder of versions 1, 2, …, of which the newest is served, or one of them"
    add("--model_base_path", metavar="DIR", required=True, default=argparse.SUPPRESS, help=what)
    add("--model_name", metavar="NAME", default="cbsn", help="under which it is asked for")
    add("--port", type=int, default=8500, help="for gRPC; 0 for a free one")
    add("--rest_api_port", type=int, default=8501, metavar="PORT", help="for REST; 0 as well")
    add("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 for everywhere")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
