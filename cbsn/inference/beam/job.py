"""Denoising those pictures and stacks of folders, globs or URLs that are not denoised yet."""

import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from cbsn.errors import ConfigError, DataError, check_number
from cbsn.files import expanded, write_json
from cbsn.images.image_files import check_jpeg_quality
from cbsn.images.stacks.ome_sets import without_repeats
from cbsn.images.stacks.opening import is_stack
from cbsn.inference.beam.locations import (
    find_pictures,
    has_wildcard,
    is_url,
    list_results,
    local_copy,
    new_file,
)
from cbsn.inference.beam.pipeline import FAILED, DenoisingModelHandler, Work, run_pipeline
from cbsn.inference.beam.stacks import StackJob, check_mounted, not_mounted
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.forecast import counted
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import changed_settings, plan_outputs
from cbsn.inference.stack_options import StackOptions, refuse_white
from cbsn.progress import say
from cbsn.value_range import check_white

RECORD = "run.json"  # what the results in a folder were made with

_BEAM_DEFAULTS = (
    # One denoiser uses all cores. Several threads would hold several pictures in memory.
    "--number_of_worker_harness_threads=1",
    "--default_sdk_harness_log_level=WARNING",
    # There are no triggers here, but this flag keeps the direct runner from first trying to fetch
    # Prism, a runner written in Go, from the network.
    "--allow_unsafe_triggers",
)


def denoise_with_beam(
    model_path: str,
    inputs: Sequence[str],
    output: str,
    *,
    format: str = "auto",
    white: float | None = None,
    jpeg_quality: int = 95,
    max_megapixels: float = 100,
    beam_flags: Sequence[str] = (),
    options: DenoiseOptions,
    stacks: StackOptions | None = None,
) -> int:
    """Denoises every picture and stack of folders or globs that is not denoised yet.

    A picture is done if its result exists and is not older than the picture. Pictures that failed
    before are tried again. Prints at the end how many were denoised, were done before, and failed.
    Stacks count as pictures. Their planes are denoised independently, and those that are done are
    not denoised again, either.

    Args:
        model_path: see `DenoisingModelHandler`.
        inputs: folders, globs or files, local or URLs, each as for `find_pictures`.
        output: folder for the results, local or a URL, made if it does not exist; see
            `plan_outputs`. Its `run.json` names the inputs, model and options it belongs to.
        format: one of `cbsn.inference.outputs.FORMATS`.
        white: the value of white in the files, as for `read_picture`. Default None.
        jpeg_quality: int from 1 to 100, see `write_picture`. Default 95.
        max_megapixels: pictures that need more memory than this many megapixels of 8-bit RGB fail
            without being decoded. 100 take 2 GB in total. R3 and the self-ensemble take 1.2 GB more
            each, so that one of them fits into a worker of 4 GB.
        beam_flags: Beam's own flags.
        options: see `Denoiser.load`.
        stacks: how stacks are read, scaled and written. Default `StackOptions()`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        ConfigError: if a flag is unusable, a stack or the folder for its result is at a URL, or the
            results in `output` were made differently. Like DataError and ModelError, it is raised
            before any work begins.
        DataError: if there is no picture, or none outside `output`.
        ModelError: if the model cannot be loaded.
        PipelineError: if the pipeline failed as a whole.
    """
    beam_options = parse_beam_flags(beam_flags)
    FileSystems.set_options(beam_options)
    output = _folder(output)
    check_number("--max_megapixels", max_megapixels, 0, above=True)
    check_white(white)
    check_jpeg_quality(jpeg_quality)
    stacks = stacks or StackOptions()
    sources = _find_sources(inputs, output)
    are_stacks = _find_stacks(sources, output, stacks.axes)
    if not are_stacks:
        stacks.refuse_for_pictures()
    elif len(are_stacks) == len(sources):
        refuse_white(white)
    targets = _plan(sorted(sources), output, format, stacks.axes)
    max_bytes = int(max_megapixels * 1e6 * 3)
    handler = DenoisingModelHandler(
        model_path, options, max_bytes=max_bytes, white=white, stacks=stacks
    )
    # Also loaded here, so that errors in it are reported before there is a pipeline.
    denoiser = handler.load_model()
    if pictures := sorted(sources.keys() - are_stacks):
        denoiser.check_takes_pictures(f"{pictures[0]} is a picture")

    there = list_results(output)
    where = [path if is_url(path) else str(Path(path).expanduser().absolute()) for path in inputs]
    model = {"path": model_path, "sha256": denoiser.sha256()}
    record = {"model": model, "input": sorted(where), "format": format, "white": white}
    if jpeg_quality != 95:  # else omitted, as in records older than this setting
        record["jpeg_quality"] = jpeg_quality
    defaults = dataclasses.asdict(StackOptions())
    record |= {n: v for n, v in dataclasses.asdict(stacks).items() if v != defaults[n]}
    record |= _settings(denoiser)
    _begin(output, record, there, targets.values())
    rest = {
        source: target
        for source, target in targets.items()
        if target not in there or there[target] < sources[source]
    }
    works = [Work(*each) for each in rest.items() if each[0] not in are_stacks]
    jobs = [StackJob(*each) for each in rest.items() if each[0] in are_stacks]
    done = len(targets) - len(rest)
    if not rest:
        say(f"0 denoised, {done} were already done, 0 failed, in {output}")
        return 0
    if is_local(beam_options):
        say(denoiser.choices)
    kinds = [(works, "picture")] * bool(works) + [(jobs, "stack")] * bool(jobs)
    what = " and ".join(counted(len(each), kind) for each, kind in kinds)
    say(f"{what} to denoise, {done} done before")
    counts = run_pipeline(beam_options, works, handler, output, jpeg_quality, jobs)
    if counts is None:
        say(f"The pipeline was started. Results go to {output}, failures to {output}/{FAILED}")
        return 0
    denoised, failed = counts
    say(f"{denoised} denoised, {done} were already done, {failed} failed, in {output}")
    if failed:
        say(f"The reasons are in {output}/{FAILED}")
    return 1 if failed else 0


def parse_beam_flags(flags: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options, from the flags that are not the command's own.

    Raises ConfigError for an invalid value. Raises it for an unknown flag, too, unless a runner is
    named: that may have flags that are not known here, so Beam only warns.
    """
    if flags and not flags[0].startswith("-"):
        raise ConfigError(f"Give pictures with --input. Received: {flags[0]!r}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = PipelineOptions([*_BEAM_DEFAULTS, *flags])
            known = PipelineOptions([]).get_all_options()
            unknown = {*options.get_all_options(retain_unknown_options=True)} - {*known}
    except SystemExit:
        reason = errors.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"Beam does not accept these flags: {reason}") from None
    workers = options.view_as(DirectOptions).direct_num_workers
    check_number("--direct_num_workers", workers, 0, 1000)  # 0 means one for each core
    if unknown and is_local(options):
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise ConfigError(f"Neither this command nor Beam knows {names}. See --help.")
    return options


def is_local(options: PipelineOptions) -> bool:
    """Says whether the pipeline runs in this process, as it does unless a runner is named."""
    return options.view_as(StandardOptions).runner is None


def _folder(output: str) -> str:
    """Returns the folder of the results in the form that precedes their names."""
    if has_wildcard(output):
        raise ConfigError(
            "Beam reads a folder with *, ? or [ in its name as a glob: use another --out. "
            f"Received: --out {output}"
        )
    if output.encode(errors="replace").decode() != output or "\0" in output:
        raise ConfigError(
            "Beam accepts only folders with names in UTF-8: use another --out. "
            f"Received: --out {output}"
        )
    return output.rstrip("/") if is_url(output) else str(expanded(output))


def _find_sources(inputs: Iterable[str], output: str) -> dict[str, float]:
    """Returns the pictures except results of earlier runs, and when each was last changed."""
    inputs = [*inputs]
    check_mounted(inputs)
    found = {file: time for pattern in inputs for file, time in find_pictures(pattern).items()}
    check_mounted([*found])
    local = [Path(file) for file in found if not is_url(file)]
    repeats = {*map(str, local)} - {*map(str, without_repeats(local))}
    found = {file: time for file, time in found.items() if file not in repeats}
    sources = {file: time for file, time in found.items() if not _lies_in(file, output)}
    results = f"{len(found) - len(sources)} of {len(found)} pictures of --input lie in {output}"
    if not sources:
        raise DataError(f"{results}, where the results go. Use another --out.")
    if len(sources) < len(found):
        say(f"{results}: they count as results and are not denoised")
    return sources


def _find_stacks(sources: Iterable[str], output: str, axes: str | None) -> set[str]:
    """Returns those of the sources that are stacks; raises ConfigError if they cannot be written.

    What a file at a URL holds is not known yet.
    """
    found = {each for each in sources if not is_url(each) and is_stack(Path(each), axes)}
    if found and is_url(output):
        raise ConfigError(not_mounted(f"--out {output}, with the stack {min(found)}"))
    return found


def _lies_in(file: str, folder: str) -> bool:
    if is_url(file) or is_url(folder):
        return file.startswith(f"{folder}/")
    return Path(file).resolve().is_relative_to(Path(folder).resolve())


def _plan(sources: Iterable[str], output: str, format: str, axes: str | None) -> dict[str, str]:
    """Maps each picture to the target of its result."""
    # A URL is not a path, but its folders and its name can be found as if it were one.
    by_path: dict[Path, str] = {}
    for source in sources:
        other = by_path.setdefault(Path(source), source)
        if other != source:
            raise ConfigError(f"{other} and {source} differ only by their slashes: rename one.")
    targets = plan_outputs([*by_path], Path(output), format, axes=axes)
    return {
        by_path[path]: f"{output}/{target.relative_to(output).as_posix()}"
        for path, target in targets.items()
    }


def _settings(denoiser: Denoiser) -> dict[str, Any]:
    """Returns the options that results depend on, `auto` included, which workers resolve."""
    names = ["rounding", "r3", "seed", "self_ensemble", "precision", "engine"]
    if not denoiser.network.is_local:
        names.append("tile")  # otherwise it changes no result, so it may be lowered to save memory
    settings = {name: getattr(denoiser.options, name) for name in names}
    settings["r3"] = denoiser.r3
    if not denoiser.strength.is_whole:  # else omitted, as in records older than this setting
        settings["strength"] = denoiser.strength.luma
        settings["color_strength"] = denoiser.strength.color
    return settings


def _begin(
    output: str, record: dict[str, Any], there: Iterable[str], targets: Iterable[str]
) -> None:
    """Prepares the folder of the results, if those in it were made with the same settings."""
    location = f"{output}/{RECORD}"
    if location in there:
        try:
            with local_copy(location) as path:
                before = json.loads(path.read_text(encoding="utf-8"))
            changes = changed_settings(before, record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{location} cannot be read, so it is unknown how the results there were made. Use "
                f"another --out. ({error!r})"
            ) from error
        if changes:
            raise ConfigError(
                f"The results in {output} were made differently: {', '.join(changes)}. Use the "
                "earlier settings, or another --out."
            )
    elif foreign := sorted({*there}.intersection(targets)):
        raise ConfigError(
            f"{output} has no {RECORD}, so it is unknown how {foreign[0]} was made. Use another "
            "--out."
        )
    try:
        with new_file(location) as path:
            write_json(path, record)
    except Exception as error:  # each file system raises its own errors
        raise ConfigError(f"{output} cannot be written: {error}. Use another --out.") from error
    # Failed pictures are tried again. Beam's temporary files are from a run that was stopped.
    old = (f"{output}/{FAILED}/failed-", f"{output}/{FAILED}/beam-temp-")
    FileSystems.delete([file for file in there if file.startswith(old)])
    if not is_url(output):
        for folder in Path(output, FAILED).glob("beam-temp-*"):
            shutil.rmtree(folder, ignore_errors=True)
