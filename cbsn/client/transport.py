"""Asking a model server to denoise, by REST; names shared by an exported model and its clients."""

import abc
import base64
import contextlib
import dataclasses
import http.client
import json
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import imagecodecs
import numpy as np

from cbsn.errors import ConfigError, ImageError, ModelError, check_number, plain_reason
from cbsn.images.picture import Picture
from cbsn.images.png import encode_png
from cbsn.inference.options import Strength
from cbsn.value_range import ROUNDING_ERROR, from_unit, to_unit

FLOATS, BYTES, FILES = "serving_default", "uint8", "encoded"  # signatures
WORDS = "uint16"  # in the place of `FILES`, of a model that was trained on stacks
IMAGES, DENOISED = "images", "denoised"  # their input and output, for pictures as arrays
# For files. TensorFlow Serving's REST API encodes values whose names end in `_bytes`.
IMAGE_BYTES, DENOISED_BYTES = "image_bytes", "denoised_bytes"

# Suffix of the signatures that also take strengths, and the names of these inputs. The signatures
# are separate because TensorFlow Serving's REST API requires all inputs: it has no default values.
WITH_STRENGTH = "_with_strength"
STRENGTH, COLOR_STRENGTH = "strength", "color_strength"

# The signatures that the client calls, with the names of their input and output.
SIGNATURES = {FILES: (IMAGE_BYTES, DENOISED_BYTES), FLOATS: (IMAGES, DENOISED)}

PictureData = TypeVar("PictureData", np.ndarray, bytes)

_ADDRESS = re.compile(r"(?:\[[^\]\s]+\]|[^\s/:\0\ud800-\udfff]+):([0-9]{1,5})")
_CHECK_TIMEOUT = 30  # seconds; requests before the pictures are sent need no computing

# The server reads 16-bit files with a smaller value range if their colours stay below this.
_DARK = 2**14

_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


def check_name(model: str, flag: str) -> None:
    """Raises ConfigError if the name of a model is empty or cannot be sent."""
    if not model or model.encode(errors="replace").decode() != model:
        raise ConfigError(f"{flag} must be the name of a model, in UTF-8. Received: {model!r}")


class ServerError(Exception):
    """A server's error, or its lack of a usable answer.

    `code` is a gRPC status or "HTTP status N"; `reason` is the message in one line, else `code`.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.reason = plain_reason(self) if message.strip() else code


@dataclasses.dataclass
class Transport(contextlib.AbstractContextManager):
    """Asks a server that speaks TensorFlow Serving's protocol to denoise pictures.

    Args:
        url: "HOST:PORT".
        model: name of the model there. Default "cbsn".
        version: version of the model. Default None, the newest.
        timeout: seconds to wait for each picture, until all of its answer is here, at most 86400.
            Default 600.
        strength: float from 0 to 1, as for `Denoiser`. Default None: 1 if `color_strength` is
            given; otherwise both are those that the model was exported with.
        color_strength: float from 0 to 1, for colour. Default None, the same as `strength`.

    Raises:
        ConfigError: if one of these is invalid.
    """

    url: str
    _: dataclasses.KW_ONLY
    model: str = "cbsn"
    version: int | None = None
    timeout: float = 600
    strength: float | None = None
    color_strength: float | None = None

    def __post_init__(self) -> None:
        address = _ADDRESS.fullmatch(self.url)
        if not address or int(address[1]) > 65535:
            raise ConfigError(
                f"--url must be HOST:PORT, such as localhost:8500. Received: {self.url!r}"
            )
        check_name(self.model, "--model")
        if self.version is not None:
            check_number("--version", self.version, 0, 2**63 - 1)
        check_number("--timeout", self.timeout, 0, 86400, above=True)
        self._shares: dict[str, float | None] = {}
        if self.strength is not None or self.color_strength is not None:
            luma = 1.0 if self.strength is None else self.strength
            shares = Strength(luma, self.color_strength)
            self._shares = {STRENGTH: shares.luma, COLOR_STRENGTH: shares.color}

    def check(self) -> None:
        """Raises ConfigError if no such server answers, ModelError if it lacks a usable model."""
        version = "" if self.version is None else f" version {self.version}"
        model = f"The model {self.model!r}{version}"
        try:
            signatures = self._signatures(min(self.timeout, _CHECK_TIMEOUT))
        except ServerError as error:
            received = f"Received: {error.reason}"
            if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise ConfigError(
                    f"No server answers at {self.url} as expected. Check --url: the usual port is "
                    f"8500 with --grpc, and 8501 with --rest. {received}"
                ) from error
            if error.code == "NOT_FOUND":
                raise ModelError(
                    f"{model} is not served at {self.url}: change --model or --version. {received}"
                ) from error
            raise ConfigError(
                f"The server at {self.url} does not describe its models as TensorFlow Serving "
                f"does. Received: {error.code}: {error.reason}"
            ) from error
        received = f"Received: the signatures {', '.join(sorted(signatures)) or 'none'}"
        if WORDS in signatures and FILES not in signatures:
            raise ModelError(
                f"{model} at {self.url} was trained on stacks, and cbsn client sends pictures: use "
                f"cbsn denoise, or send planes as arrays. {received}"
            )
        for signature, (sent, returned) in SIGNATURES.items():
            if signatures.get(signature) != ({sent}, {returned}):
                raise ModelError(
                    f"{model} at {self.url} was not written by cbsn export: it has no signature "
                    f"{signature!r} from {sent!r} to {returned!r}. {received}"
                )
            if signatures.get(self._signature(signature)) != ({sent, *self._shares}, {returned}):
                raise ModelError(
                    f"{model} at {self.url} takes no strength: it comes from an earlier version of "
                    "cbsn export. Export it again, or omit --strength and --color_strength. "
                    f"{received}"
                )

    def predict(self, signature: str, value: PictureData) -> PictureData:
        """Has the server denoise one picture, and returns the result.

        Args:
            signature: a key of `SIGNATURES`.
            value: for `FILES`, the bytes of a PNG or JPEG file; the result is those of a PNG file.
                For `FLOATS`, float32 [H, W, C] in [0, 1], and so is the result.

        Raises:
            ImageError: if the server refuses the picture, fails, or does not answer in time.
        """
        try:
            return self._predict(signature, value)
        except ServerError as error:
            if error.code == "INVALID_ARGUMENT":
                said = f"the server rejected it: {error.reason}"
            elif error.code == "DEADLINE_EXCEEDED":
                said = f"no answer within {self.timeout:g} seconds; use a longer --timeout."
            else:
                said = f"the server at {self.url} failed: {error.code}: {error.reason}"
            raise ImageError(said) from error

    def _signature(self, signature: str) -> str:
        """Returns the name of the signature to call, with strengths if they are to be sent."""
        return signature + WITH_STRENGTH if self._shares else signature

    @abc.abstractmethod
    def _signatures(self, timeout: float) -> dict[str, tuple[set[str], set[str]]]:
        """Returns the names of the inputs and outputs per signature; may raise ServerError."""

    @abc.abstractmethod
    def _predict(self, signature: str, value: Any) -> Any:
        """Does the work of `predict`, but may raise ServerError."""

    def __exit__(self, *_: object) -> None:
        """Closes the connection, if the transport keeps one."""


class RestTransport(Transport):
    """A `Transport` by REST, in JSON. Files go as base64, floats as decimals, 5 times as long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._model_url = f"http://{self.url}/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is not None:
            self._model_url += f"/versions/{self.version}"

    def _signatures(self, timeout: float) -> dict[str, tuple[set[str], set[str]]]:
        answer = self._ask("/metadata", timeout)
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: ({*signature["inputs"]}, {*signature["outputs"]})
                for name, signature in signatures.items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise _unexpected(answer) from error

    def _predict(self, signature: str, value: Any) -> Any:
        is_file = isinstance(value, bytes)
        instance = {"b64": base64.b64encode(value).decode()} if is_file else value.tolist()
        if self._shares:
            instance = {SIGNATURES[signature][0]: instance, **self._shares}
        request = {"signature_name": self._signature(signature), "instances": [instance]}
        answer = self._ask(":predict", self.timeout, request)
        try:
            (result,) = answer["predictions"]
            if is_file:
                return base64.b64decode(result["b64"], validate=True)
            return np.array(result, np.float32)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise _unexpected(answer) from error

    def _ask(self, path: str, timeout: float, request: dict[str, Any] | None = None) -> Any:
        body = None if request is None else json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        question = urllib.request.Request(self._model_url + path, body, headers)
        try:
            try:
                response = _OPENER.open(question, timeout=timeout)
            except urllib.error.HTTPError as error:
                response = error  # also an answer
            with response:
                status, answer = response.status, response.read()
        except http.client.HTTPException as error:
            kind = type(error).__name__
            raise ServerError("UNAVAILABLE", f"the answer is not valid HTTP ({kind})") from error
        except (OSError, UnicodeError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            code = "DEADLINE_EXCEEDED" if isinstance(cause, TimeoutError) else "UNAVAILABLE"
            raise ServerError(code, str(cause)) from error
        if status != http.client.OK:
            raise ServerError(_CODES.get(status, f"HTTP status {status}"), _message(answer))
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise _unexpected(answer) from error


class _Socket(socket.socket):
    """A socket that receives until a time of `time.monotonic`, in however many pieces."""

    deadline: float

    def recv_into(self, *arguments: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*arguments)


class _Connection(http.client.HTTPConnection):
    """A connection whose timeout is that of the whole exchange, not of each operation in it."""

    sock: socket.socket

    def connect(self) -> None:
        assert self.timeout
        deadline = time.monotonic() + self.timeout
        super().connect()
        limited = _Socket(fileno=self.sock.detach())
        limited.deadline = deadline
        limited.settimeout(max(deadline - time.monotonic(), 1e-3))  # for sending
        self.sock = limited


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


_OPENER = urllib.request.build_opener(_Handler)


def _message(body: bytes) -> str:
    """Returns the message in the body of an error, or else the whole body."""
    try:
        return str(json.loads(body)["error"])
    # TensorFlow Serving escapes as C does, not as JSON.
    except (KeyError, TypeError, ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _unexpected(answer: Any) -> ServerError:
    return ServerError("UNIMPLEMENTED", f"an unexpected answer, {str(answer)[:100]}")


def denoise_remotely(
    transport: Transport, picture: Picture, on_share: Callable[[float], None]
) -> Picture:
    """Denoises one picture on a server.

    Pixels of 8 and 16 bits are sent as PNG files, which are lossless, so that the result does not
    depend on who decodes a JPEG. Floats are sent as they are. Dark pictures of 16 bits are sent as
    floats, too: the server would see too small a value range in their files. Metadata are not sent.
    `on_share` is called with 1.0 when the answer arrives.

    Raises:
        ImageError: see `Transport.predict`; or the answer is no picture of this shape and dtype, or
            has floats outside [0, 1].
    """
    pixels = picture.pixels
    is_dark = pixels.dtype == np.uint16 and picture.color.max() < _DARK
    if is_dark:
        pixels = to_unit(pixels)
    if pixels.dtype == np.float32:
        result = transport.predict(FLOATS, pixels)
    else:
        png = transport.predict(FILES, encode_png(pixels))
        try:
            result = np.atleast_3d(imagecodecs.png_decode(png))
        except Exception as error:  # damaged bytes make decoders raise almost anything
            raise ImageError(
                f"the server did not return a PNG file. Received: {len(png)} bytes, {png[:20]!r}"
            ) from error
    on_share(1.0)
    _check_result(result, pixels)
    if is_dark:
        result = from_unit(result, np.uint16)
    return picture.with_pixels(result)


def _check_result(result: np.ndarray, pixels: np.ndarray) -> None:
    """Raises an ImageError unless an answer is a picture like the one that was sent."""
    if (result.shape, result.dtype) != (pixels.shape, pixels.dtype):
        raise ImageError(
            f"the server did not return a picture of {pixels.dtype} {pixels.shape}. "
            f"Received: {result.dtype} {result.shape}"
        )
    if result.dtype == np.float32:
        low, high = result.min(), result.max()  # NaN if there is one
        if not (low >= -ROUNDING_ERROR and high <= 1 + ROUNDING_ERROR):
            raise ImageError(
                "the server did not return values from 0 to 1. "
                f"Received: values from {low:g} to {high:g}"
            )
