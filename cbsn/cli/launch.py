"""Starts several workers of one training on this machine, to try out training on several machines.

    cbsn launch --workers 2 -- photos --name NAME …

runs `cbsn train` with the flags after `--` once for each worker, with `TF_CONFIG` set. Each worker
gets its share of the GPUs; if there are fewer GPUs than workers, all compute on the CPU. On several
machines, set `TF_CONFIG` on each and run `cbsn train` yourself.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from cbsn.cli.parser import new_parser
from cbsn.errors import ConfigError, TrainingStopped
from cbsn.signals import STOPPING

_GPUS = "CUDA_VISIBLE_DEVICES"  # numbers or UUIDs; TensorFlow sees these in this order

PATIENCE = 60.0  # seconds that the others have to end by themselves when one worker has failed


def launch(command: list[str], workers: int) -> int:
    """Runs a command in several processes that find each other through `TF_CONFIG`.

    The signals that stop a training stop all of them. If one fails, the others have `PATIENCE`
    seconds to end before they are killed. Returns 0 if all succeeded, else the status of the first
    that did not.
    """
    from cbsn.inference.forecast import counted
    from cbsn.training.distribution import VARIABLE, Cluster  # with TensorFlow

    addresses, gpus = _free_addresses(workers), _count_gpus()
    if 0 < gpus < workers:
        there = counted(gpus, "GPU")
        print(f"{workers} workers cannot share {there}, so they compute on the CPU.", flush=True)
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, frame: object) -> None:
        if sys.platform == "win32":  # the console has sent Ctrl-C to all of them already
            return
        for process in processes:
            process.send_signal(number)

    handled = [each for each in STOPPING if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in handled}
    try:
        for index, address in enumerate(addresses):
            process = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **_share_of_gpus(gpus, index, workers),
                    VARIABLE: Cluster(addresses, index).to_json(),
                },
                # Otherwise Ctrl-C would reach them twice: from the terminal, and from here. Windows
                # has no sessions.
                start_new_session=True,
            )
            processes.append(process)
            print(f"Worker {index} at {address}: process {process.pid}", flush=True)
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen]) -> int:
    """Waits for all processes; returns the status of the first that failed, or 0."""
    failed, deadline = None, 0.0
    while True:
        codes = [process.poll() for process in processes]
        if failed is None and any(codes):
            failed = next(number for number, code in enumerate(codes) if code)
            deadline = time.monotonic() + PATIENCE
        if None not in codes:
            break
        if failed is not None and time.monotonic() > deadline:
            print("A worker failed, and the others do not end: killing them.", file=sys.stderr)
            break
        time.sleep(0.1)
    if failed is None:
        return 0
    if (status := processes[failed].returncode) != TrainingStopped.status:
        # The others say that a worker is gone, maybe below the reason.
        print(f"Worker {failed} failed first; its lines above say why.", file=sys.stderr)
    return status


def _count_gpus() -> int:
    """Returns how many GPUs TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _share_of_gpus(gpus: int, index: int, workers: int) -> dict[str, str]:
    """Returns what makes a worker see its share of the GPUs: none if there is not one for each.

    Several processes cannot exchange gradients on one GPU.
    """
    if not gpus:
        return {}
    chosen = os.environ.get(_GPUS)
    names = chosen.split(",")[:gpus] if chosen else [str(number) for number in range(gpus)]
    return {_GPUS: ",".join(names[index::workers] if gpus >= workers else ())}


def _free_addresses(count: int) -> tuple[str, ...]:
    """Returns different free addresses of this machine, by holding each until all are found."""
    with contextlib.ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in found)


def main(flags: argparse.Namespace) -> int:
    """Starts the workers."""
    if flags.workers < 1:
        raise ConfigError(f"--workers must be at least 1. Received: {flags.workers}")
    return launch([sys.executable, "-m", "cbsn", "train", *flags.train_flags], flags.workers)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    flags = new_parser("Start several workers of one training on this machine.")
    flags.add_argument("--workers", type=int, default=2, help="how many")
    flags.add_argument("train_flags", nargs="*", metavar="-- FLAGS", help="flags of `cbsn train`")
    return flags
