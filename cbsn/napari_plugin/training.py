"""A training in a process of its own: its command, its lines, and how it is stopped."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.napari_plugin import processes
from cbsn.napari_plugin.denoising import Cancelled
from cbsn.napari_plugin.layers import LayerPlanes

_MOST_BYTES = 2**31  # of the planes that are written for the training
# A progress bar of tqdm, such as ` 12%|█▏   | 120/1000 [00:10<01:20, 11.0step/s, loss=0.1]`.
_BAR = re.compile(r"\s*\d+%\|.*?\| (\d+)/(\d+) \[.*?(step/s|s/step|\?step/s)")
_ANY_BAR = re.compile(r".*?\d+%\|.*\| \d+/\d+ \[")


def write_planes(
    planes: LayerPlanes, path: Path, is_stopped: Callable[[], bool] = lambda: False
) -> int:
    """Writes the planes of a layer to a TIFF file for a training.

    A large layer's planes are written in part, evenly spread: minutes of training see no more.

    Args:
        planes: the layer's.
        path: the file.
        is_stopped: asked before each plane.

    Returns:
        The number of planes that are written.

    Raises:
        Cancelled: if `is_stopped` is true. The file is left incomplete.
        ImageError: if values are not finite, or a file is damaged.
        OSError: if it cannot be written.
    """
    import tifffile

    shape, dtype = planes.shape, planes.dtype
    if dtype == np.float16:  # which TIFF readers do not agree on
        dtype = np.dtype(np.float32)
    bytes_of_plane = int(np.prod(shape)) * dtype.itemsize
    count = max(1, min(planes.count, _MOST_BYTES // bytes_of_plane))

    def pages() -> Any:
        for number in range(count):
            if is_stopped():
                raise Cancelled
            yield planes.read(number * planes.count // count).astype(dtype, copy=False)

    tifffile.imwrite(
        path,
        pages(),
        shape=(count, *shape),
        dtype=dtype,
        ome=True,  # also a single plane is a stack then
        photometric="rgb" if len(shape) > 2 else "minisblack",
        metadata={"axes": "TYXS" if len(shape) > 2 else "TYX"},
    )
    return count


def training_command(file: Path, folder: Path, steps: int | None) -> list[str]:
    """Returns the command that trains Noise2Void on a file; it is `cbsn train`.

    Args:
        file: a stack.
        folder: of the run.
        steps: how many there are. Default None, as many as the recipe has, for a training that is
            stopped by the clock.
    """
    arguments = ["train", str(file), "--recipe", "n2v-unet", "--out", str(folder)]
    # With the mean of the weights, a run is good wherever it is stopped.
    arguments += ["--ema", "0.999"]
    arguments += [] if steps is None else ["--steps", str(steps)]
    return processes.module_command("train_process", *arguments)


class TrainingProcess:
    """Runs a command; a thread passes on what it prints.

    Args:
        command: the program and its arguments. The end of its input asks it to stop.
        folder: the working directory, where the training puts its patches.
        on_line: called with each line, except progress bars.
        on_progress: called with the step and the number of steps.
        on_end: called with the exit status. All three are called in the thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        on_line: Callable[[str], None],
        on_progress: Callable[[int, int], None],
        on_end: Callable[[int], None],
    ):
        self._on_line, self._on_progress, self._on_end = on_line, on_progress, on_end
        self._process = processes.start(
            command,
            cwd=folder,
            stderr=subprocess.STDOUT,
            text=True,  # which also divides lines where a progress bar is drawn again
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            line = line.rstrip()
            if found := _BAR.match(line):
                self._on_progress(int(found[1]), int(found[2]))
            elif line and not _ANY_BAR.match(line):
                self._on_line(line)
        self._process.stdout.close()
        self._on_end(self._process.wait())

    def stop(self) -> None:
        """Asks the process to save and to end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """Ends the process at once; what it has saved before is intact."""
        if self._process.poll() is None:
            self._process.kill()
