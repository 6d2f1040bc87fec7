"""The process that denoises, and napari's end of it. See `processes` for the reason.

Both sides send each other pickles through pipes: napari a request, and the other an answer. While
it works it sends what share is done, and napari says whether to go on.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import warnings
from typing import Any

import numpy as np

from cbsn.errors import CbsnError, CbsnWarning
from cbsn.images.stacks.scaling import Scale
from cbsn.napari_plugin import processes
from cbsn.napari_plugin.denoising import (
    Cancelled,
    ModelFacts,
    Report,
    explain,
    facts_of,
    load_denoiser,
    own_warnings,
)


class DenoiseError(CbsnError):
    """What went wrong in the other process, in words for the user."""


class DenoiseProcess:
    """Denoises planes in another process, which starts when it is needed, and keeps its model.

    It may be used from several threads, which take turns.

    Example:
        >>> process = DenoiseProcess()
        >>> scale = measure_scale(planes, process.facts("photo", 0).scaling)
        >>> clean = process.denoise("photo", 0, noisy, scale)
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._turn = threading.Lock()

    def facts(self, model: str, tile: int) -> ModelFacts:
        """Returns the facts of a model; for the arguments, see `load_denoiser`."""
        return self._ask((model, tile))

    def denoise(
        self,
        model: str,
        tile: int,
        planes: np.ndarray,
        scale: Scale,
        on_share: Report = lambda share: None,
    ) -> np.ndarray:
        """Denoises planes as `Denoiser.scaled` does.

        `on_share` gets each tile's share of the work. An error that it raises ends the work.
        """
        return self._ask((model, tile, planes, scale), on_share)

    def close(self) -> None:
        """Ends the process. It starts again when it is needed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            self._process = None

    def _ask(self, request: Any, on_share: Report = lambda share: None) -> Any:
        """Sends a request and returns the answer; raises the other side's error as this one's."""
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                self.close()
                command = processes.module_command("denoise_process")
                self._process = processes.start(command, stderr=subprocess.DEVNULL)
            try:
                self._send(request)
                stop: Exception | None = None
                while True:
                    kind, value = pickle.load(self._process.stdout)  # type: ignore[arg-type]
                    if kind == "share":
                        try:
                            on_share(value)
                        except Exception as error:
                            stop = error
                        self._send(stop is None)
                    elif kind == "warning":
                        warnings.warn(value, CbsnWarning, stacklevel=2)
                    elif kind == "error":
                        raise stop or DenoiseError(value)
                    else:
                        return value
            except (EOFError, OSError, pickle.UnpicklingError):
                self.close()
                raise DenoiseError(
                    "The process that denoises has ended unexpectedly, maybe because memory ran "
                    "out. Denoise the current plane only, or choose smaller tiles under “Advanced”."
                ) from None

    def _send(self, message: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        pickle.dump(message, self._process.stdin, protocol=5)
        self._process.stdin.flush()


def serve(requests: Any, answers: Any) -> None:
    """Answers requests until there are no more."""

    def send(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers, protocol=5)
        answers.flush()

    def on_tile(share: float) -> None:
        send("share", share)
        if not pickle.load(requests):
            raise Cancelled

    while True:
        try:
            model, tile, *work = pickle.load(requests)
        except EOFError:  # napari has ended
            return
        try:
            with own_warnings():
                warnings.showwarning = lambda message, *rest: send("warning", str(message))
                denoiser = load_denoiser(model, tile)
                answer: Any = facts_of(denoiser)
                if work:
                    planes, scale = work
                    answer = denoiser.scaled(planes, scale, on_tile)
            send("answer", answer)
        except Exception as error:
            send("error", explain(error))


def main() -> None:
    """Serves the parent through the standard input and output."""
    # Libraries print what they like, which must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
