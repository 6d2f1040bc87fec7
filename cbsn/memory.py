"""How much memory this process takes."""

import contextlib
import resource
import sys
from pathlib import Path


def peak_memory() -> float:
    """The largest resident memory of this process so far, in GiB."""
    try:
        # ru_maxrss will not do on Linux: a process inherits that of the one that started it.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kibibytes = usage / 1024 if sys.platform == "darwin" else usage
    return kibibytes / 2**20


def reset_peak_memory() -> None:
    """Starts `peak_memory` anew from what is resident now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
