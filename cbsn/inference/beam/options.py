"""Beam's own flags."""

import contextlib
import io
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from cbsn.errors import ConfigError, check_number

_MOST_WORKERS = 1000
"""Of one machine; 0 is one for each of its cores."""

_DEFAULTS = (
    # The denoiser takes all cores by itself; several threads would have several pictures in memory.
    "--number_of_worker_harness_threads=1",
    "--default_sdk_harness_log_level=WARNING",
    # There are no triggers here. But where they may be unsafe, the direct runner does not try to
    # fetch Prism, a runner written in Go, from the network first.
    "--allow_unsafe_triggers",
)


def parse_beam_flags(flags: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options.

    Args:
        flags: those that are not the command's own.

    Raises:
        ConfigError: if a flag has a value that it cannot have, or is unknown. With a runner that is
            named, which may have flags that nobody knows here, Beam only warns.
    """
    if flags and not flags[0].startswith("-"):
        raise ConfigError(f"Pictures are given by --input. Received: {flags[0]!r}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = PipelineOptions([*_DEFAULTS, *flags])
            known = PipelineOptions([]).get_all_options()
            unknown = {*options.get_all_options(retain_unknown_options=True)} - {*known}
    except SystemExit:
        reason = errors.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"Beam cannot take these flags: {reason}") from None
    workers = options.view_as(DirectOptions).direct_num_workers
    check_number("--direct_num_workers", workers, 0, _MOST_WORKERS)
    if unknown and is_local(options):
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise ConfigError(f"Neither this command nor Beam knows {names}. See --help.")
    return options


def is_local(options: PipelineOptions) -> bool:
    """Says whether the pipeline runs in this process, as it does unless a runner is named."""
    return options.view_as(StandardOptions).runner is None
