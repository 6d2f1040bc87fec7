"""The report on the noise in pictures: what it is like, and how to train on them."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.pairs import spread
from cbsn.errors import CbsnError, ConfigError, DataError, check_number
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose
from cbsn.evaluation.stack_noise import ChannelNoise, stack_noise
from cbsn.files import write_json
from cbsn.images.finding import are_single, find_images
from cbsn.images.image_files import read_picture
from cbsn.images.stacks.ome_sets import without_repeats
from cbsn.images.stacks.opening import are_stacks
from cbsn.inference.options import DenoiseOptions, given_flags
from cbsn.inference.stack_options import StackOptions, refuse_white
from cbsn.noise.advice import Advice, advise
from cbsn.noise.defects import find_defects
from cbsn.noise.estimate import NoiseEstimate, estimate_noise_of_residuals
from cbsn.noise.lines import LineNoise
from cbsn.noise.structure import NoiseStructure, mask_for, measure_structure
from cbsn.progress import say
from cbsn.value_range import check_white, value_range

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]

# The first entry of the JSON, and the start of a file with it, by which such a file is known.
_MARK = {"command": "cbsn noise"}
_START = b'{\n  "command": "cbsn noise",\n'

_LOOKED_AT, _SIDE = 16, 1024  # pictures, and the side of their middle, that outliers are sought in


def report_noise(
    pictures: Iterable[str | Path],
    *,
    model_path: str | None = None,
    denoised: str | None = None,
    images: int = 0,
    white: float | None = None,
    figure: Path | None = None,
    json: Path | None = None,
    options: DenoiseOptions | None = None,
    stacks: StackOptions | None = None,
) -> None:
    """Says what the noise in pictures is like, and which recipe and strides fit it.

    Of stacks, it says so for each channel, see `cbsn.evaluation.stack_noise.stack_noise`.

    Args:
        pictures: noisy pictures or stacks: folders, globs or files, each as for `find_images`.
        model_path: a model; what it removes is taken for noise, in place of what varies in flat
            parts of the pictures.
        denoised: the same for a folder or glob of denoised pictures of the same names.
        images: int ≥ 0, number of pictures to take, evenly spread; 0 for all. Of stacks, number of
            planes of each channel; 0 for 64, which are the most.
        white: float > 0, the value of white in the files; see `read_picture`.
        figure: file for a figure; the suffix says its format.
        json: file for all numbers.
        options: how the model denoises. Default `DenoiseOptions()`.
        stacks: how stacks are read. Default `StackOptions()`.

    Raises:
        ConfigError: if the arguments do not fit each other, or a file cannot be written.
        DataError: if there are no pictures, or no noise is seen in them.
    """
    if model_path and denoised:
        raise ConfigError(
            "Give --model or --denoised, not both. Received: "
            f"--model {model_path} --denoised {denoised}"
        )
    if not model_path and options and (given := given_flags(options)):
        raise ConfigError(
            f"{given[0].split()[0]} is for --model, and says how it denoises: omit it. "
            f"Received: {' '.join(given)}"
        )
    if figure:
        # With Matplotlib, which is slow.
        from cbsn.noise.report import check_figure, draw_noise, is_figure

        check_figure(figure)
        _check_output("--figure", figure, is_figure)
    if json:
        _check_output("--json", json, _is_json)
    if figure and json and figure.resolve() == json.resolve():
        raise ConfigError(
            "--figure and --json need a file each: change one of them. "
            f"Received: --figure {figure} --json {json}"
        )
    check_white(white)
    check_number("--images", images, 0)
    pictures = [*pictures]
    found = (path for pattern in pictures for path in find_images(pattern))
    paths = without_repeats([*dict.fromkeys(found)])
    stacks = stacks or StackOptions()
    if are_stacks(paths, stacks.axes):
        refuse_white(white)
        if not model_path and stacks.normalize != "auto":
            raise ConfigError(
                "--normalize says what a model sees in a stack: omit it, or add --model. "
                f"Received: --normalize {stacks.normalize}"
            )
        every = stack_noise(
            paths,
            stacks,
            images=images,
            model_path=model_path,
            denoised=denoised,
            denoise_options=options,
        )
        _report_stacks(paths, every, json, figure)
        return
    stacks.refuse_for_pictures()
    paths = spread(paths, images)
    diagnoses: list[Diagnosis] = []
    numbers: dict[str, Any] = {"names": [str(path) for path in paths]}
    if not (denoised or model_path):
        report = noise_of_pictures(paths, white)
        numbers |= report.numbers
        told = [*report.lines]
        if figure and report.estimate is None:
            told.append(f"{figure} is not drawn, as it would show the other noise.")
        say("\n".join(told))
    else:
        pairs = (
            _named_pairs(paths, denoised, white)
            if denoised
            else _denoised(paths, str(model_path), white, options)
        )
        report = _report_of(estimate_noise_of_residuals(_diagnosed(pairs, diagnoses)))
        numbers |= report.numbers
        say("\n".join(report.lines))
    if diagnoses:
        diagnosis = Diagnosis.mean_of(diagnoses)
        numbers["diagnosis"] = diagnosis.to_dict()
        say("\n".join(["", "The denoised pictures:", *diagnosis.lines()]))
    _write(json, numbers)
    if figure and report.estimate and report.advice:
        draw_noise(report.estimate, report.advice, figure)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseReport:
    """What the noise in pictures is like, and what to do about it.

    Args:
        lines: what to say of it.
        numbers: the same for JSON.
        estimate: of the noise; None if that of lines or outliers is all that can be seen.
        advice: how to train on the pictures; None without an estimate.
    """

    lines: Sequence[str]
    numbers: Mapping[str, Any]
    estimate: NoiseEstimate | None = None
    advice: Advice | None = None


def noise_of_pictures(paths: Sequence[Path], white: float | None = None) -> NoiseReport:
    """Reports the noise of picture files: the rest, and that of lines, bands and outliers.

    Args:
        paths: the files, at least one.
        white: float > 0, the value of white in the files; see `read_picture`. Default None.

    Raises:
        DataError: if no noise of any kind can be seen.
        ImageError: if a file cannot be read.

    Example:
        >>> report = noise_of_pictures([Path("photo.jpg")])
        >>> report.lines[0]
    """
    structure = measure_structure(lambda: (read_picture(path, white=white).color for path in paths))
    outliers, looked_at = _outliers(paths, white)
    lines = structure.found_lines
    numbers = {
        "lines": [each.to_dict() for each in lines],
        "bands": [each.to_dict() for each in structure.bands],
        "outliers": {"pixels": outliers, "pictures": looked_at},
    }
    seen = _seen(structure, outliers, looked_at)
    if structure.estimate is None:
        if not (lines or seen):
            raise DataError(structure.reason)
        reasons = mask_for(None, lines).reasons if lines else ()
        told = [structure.reason, "", *(f"- {reason}" for reason in reasons), *seen]
        return NoiseReport(told, {**numbers, "noise": None, "reason": structure.reason})
    rest = _report_of(structure.estimate, lines, outliers=outliers > 0)
    return dataclasses.replace(
        rest, lines=[*rest.lines, *seen], numbers={**numbers, **rest.numbers}
    )


def _report_of(
    estimate: NoiseEstimate, lines: Sequence[LineNoise] = (), *, outliers: bool = False
) -> NoiseReport:
    """Returns the report of an estimate, with advice."""
    advice = advise(estimate, lines, "picture", outliers=outliers)
    numbers = {"noise": estimate.to_dict(), "advice": vars(advice)}
    return NoiseReport([*estimate.lines(), "", *advice.lines()], numbers, estimate, advice)


def _outliers(paths: Sequence[Path], white: float | None) -> tuple[int, int]:
    """Returns how many pixels of some pictures are isolated outliers, and of how many pictures."""
    count = 0
    looked_at = spread(paths, _LOOKED_AT)
    for path in looked_at:
        picture = read_picture(path, white=white).color
        middle = tuple(
            slice((n - min(n, _SIDE)) // 2, (n + min(n, _SIDE)) // 2) for n in picture.shape[:2]
        )
        count += len(find_defects([picture[middle]])) // picture.shape[2]
    return count, len(looked_at)


def _seen(structure: NoiseStructure, outliers: int, looked_at: int) -> list[str]:
    """Returns lines on bands and outliers."""
    lines = [f"- {each.describe()}" for each in structure.bands]
    if outliers:
        pixels = "pixels are isolated outliers" if outliers > 1 else "pixel is an isolated outlier"
        lines.append(
            f"- {outliers} {pixels} in {looked_at} picture{'s' * (looked_at > 1)}, such as "
            "hot pixels of a camera: cbsn denoise --repair pixels."
        )
    return lines


def _report_stacks(
    paths: Iterable[Path], every: Iterable[ChannelNoise], json: Path | None, figure: Path | None
) -> None:
    """Says what the noise of each channel is like, and writes the files."""
    found: list[ChannelNoise] = []
    for each in every:
        say("\n".join([*([""] if found else []), *each.lines()]))
        found.append(each)
    _write(
        json,
        {"names": [str(path) for path in paths], "stacks": [each.to_dict() for each in found]},
    )
    drawn = [each for each in found if each.estimate] if figure else []
    for number, each in enumerate(drawn):
        from cbsn.noise.report import draw_noise, is_figure

        assert figure and each.estimate and each.advice
        path = figure if len(drawn) == 1 else figure.with_stem(f"{figure.stem}-{number}")
        _check_output("--figure", path, is_figure)
        draw_noise(each.estimate, each.advice, path)


def _write(json: Path | None, numbers: dict[str, Any]) -> None:
    if json:
        try:
            write_json(json, _MARK | numbers)
        except OSError as error:
            raise ConfigError(f"--json {json}: {error.strerror}.") from error


def _named_pairs(paths: Sequence[Path], folder: str, white: float | None) -> Pairs:
    """Yields each picture and the denoised one of its name (suffix aside), in the same range."""
    denoised = {path.stem: path for path in find_images(folder)}
    if len(paths) == 1 and are_single(folder):
        denoised = dict(zip((paths[0].stem,), denoised.values(), strict=True))
    for path in paths:
        if path.stem not in denoised:
            raise DataError(
                f"Every picture needs a denoised one of the same name. --denoised {folder} has "
                f"none for {path}."
            )
    for path in paths:
        pair = (path, denoised[path.stem])
        first, second = (read_picture(each, white=white) for each in pair)
        if first.pixels.dtype == second.pixels.dtype:
            second.range_in_file.change(second.color, first.range_in_file)
        yield first.color, second.color


def _denoised(
    paths: Iterable[Path], model_path: str, white: float | None, options: DenoiseOptions | None
) -> Pairs:
    """Yields each picture and a model's denoised version of it."""
    from cbsn.inference.denoiser import Denoiser  # with TensorFlow, needed only here

    denoise = Denoiser.load(model_path, options or DenoiseOptions())
    say(f"{denoise.recipe.name} ({model_path}): {denoise.choices}")
    for path in paths:
        picture = read_picture(path, white=white).color
        try:
            yield picture, denoise(picture, white=value_range(picture.dtype))
        except CbsnError as error:
            raise type(error)(f"{path}: {error}") from error


def _diagnosed(pairs: Pairs, diagnoses: list[Diagnosis]) -> Pairs:
    """Yields each pair, then diagnoses it: by then the consumer has rejected it if it is unfit."""
    for noisy, denoised in pairs:
        yield noisy, denoised
        if min(noisy.shape[:2]) >= SMALLEST:
            diagnoses.append(diagnose(noisy, denoised))


def _is_json(path: Path) -> bool:
    """Returns whether this module has written a file of numbers."""
    with path.open("rb") as file:
        return file.read(len(_START)) == _START


def _check_output(flag: str, path: Path, is_own: Callable[[Path], bool]) -> None:
    """Rejects output files that cannot be written, before the work rather than after it."""
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigError(f"{flag} must be a file in an existing folder. Received: {flag} {path}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{flag} must be in a folder that can be written to: {error.strerror}. "
            f"Received: {flag} {path}"
        ) from error
    # A flag that is given no name would take the first picture.
    if path.exists() and path.stat().st_size and not is_own(path):
        raise ConfigError(
            f"{flag} replaces only files that cbsn noise {flag} wrote: give the name of a new "
            f"file. Received: {flag} {path}"
        )
