"""Scores denoisers on noisy pictures, with or without clean ones."""

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.pairs import PicturePairs, spread
from cbsn.data.stack_pairs import StackPairs, hold_stacks
from cbsn.errors import (
    LARGEST_SEED,
    ConfigError,
    brief,
    check_names,
    check_number,
    check_paths,
    check_texts,
)
from cbsn.evaluation.comparison import Comparison, PictureComparison
from cbsn.evaluation.conventions import Conventions
from cbsn.evaluation.lpips import LPIPS, cached_weights
from cbsn.evaluation.methods import BEST, make_baselines
from cbsn.evaluation.report.html import ReportContent, write_report
from cbsn.evaluation.report.pictures import ReportPicture, write_contact_sheet
from cbsn.evaluation.scores import (
    Scores,
    csv_table,
    fitting_note,
    format_table,
    markdown_table,
    parse_metrics,
    score,
)
from cbsn.evaluation.stacks import METRICS as STACK_METRICS
from cbsn.evaluation.stacks import StackComparison
from cbsn.files import expanded, write_json, write_text
from cbsn.inference.options import DenoiseOptions, given_flags
from cbsn.inference.stack_options import StackOptions, refuse_white
from cbsn.noise.synthetic import Noise
from cbsn.progress import say
from cbsn.value_range import check_white

_JSON, _CSV, _MARKDOWN = "results.json", "results.csv", "results.md"
_REPORT, _SHEET = "report.html", "contact_sheet.png"
_SHOWN = 12  # pictures in the report, by default


def evaluate(
    clean: str | Path | None = None,
    model_paths: str | Path | Iterable[str | Path] = (),
    *,
    noisy: str | Path | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    denoised: str | Path | Iterable[str | Path] = (),
    baselines: str | None = None,
    baseline_sigma: str | None = None,
    images: int = 0,
    metrics: str | None = None,
    conventions: Conventions | None = None,
    lpips: bool | None = None,
    lpips_weights: Path | None = None,
    white: float | None = None,
    out: Path | None = None,
    report_images: int = _SHOWN,
    options: DenoiseOptions | None = None,
    stacks: StackOptions | None = None,
) -> list[Scores]:
    """Scores models, denoised pictures and baselines on pairs of pictures, and prints a table.

    Without clean pictures there are no metrics, only the times, the diagnosis and the report. Each
    plane of a stack counts as a picture, see `cbsn.evaluation.stacks.StackComparison`.

    Args:
        clean: clean pictures, if there are any; see `PicturePairs`.
        model_paths: one model or several; see `Denoiser.load`.
        noisy: noisy pictures with the same names.
        noise: instead of `noisy`, noise to add to the clean pictures, the same on every run.
        seed: int in [0, 2⁶⁴), the seed of that noise.
        denoised: one folder or several of already denoised pictures with the same names; these need
            no `noisy`.
        baselines: names from `cbsn.evaluation.methods.BASELINES`, separated by commas. Default
            `"noisy"` if there are noisy and clean pictures, else none.
        baseline_sigma: σ in 8-bit levels for the baselines, or `"best"`; see `make_baselines`.
        images: int ≥ 0, number of pairs to score, spread evenly over the list; 0 for all.
        metrics: names from `cbsn.evaluation.scores.METRICS`, separated by commas. For microscopy:
            `"si_psnr"`, see `cbsn.evaluation.microscopy.si_psnr`, and `"micro_ssim"`, see
            `micro_ssim` there; both are fitted to each picture. Default `"psnr,ssim"`, and for
            stacks `"psnr,ssim,si_psnr"`.
        conventions: how pictures are compared. Default: see `Conventions.choose`; for stacks, they
            become those of `Conventions.for_stacks`.
        lpips: whether to compute LPIPS, also for gray pictures, and to fetch its weights if needed.
            None computes it for colour pictures, if the weights are given or in the cache.
        lpips_weights: see `LPIPS`.
        white: float > 0, the value of white in the files; see `read_picture`.
        out: folder for `results.json`, `.csv` and `.md`, `report.html` and `contact_sheet.png`.
        report_images: int ≥ 0, pictures in the report, spread evenly; 0 for no report.
        options: how the models denoise; see `Denoiser.load`.
        stacks: how stacks are read, and scaled for models. Default `StackOptions()`.

    Returns:
        The scores of the baselines, the denoised folders and the models, in this order.

    Raises:
        ConfigError: if the arguments do not fit each other, one of them would have no effect, or
            bm3d is not installed.
        DataError: if there are no pairs, or one of them is too small for a metric.
        ImageError: if a picture cannot be read or denoised.
        ModelError: if a model or the weights of LPIPS cannot be loaded.

    Example:
        >>> scores = evaluate("test/clean", ["checkpoints/my-run"], noisy="test/noisy")
        >>> print(scores[-1].mean("psnr"))
    """
    # Resolve.
    models, folders = _paths("--model", model_paths), _paths("--denoised", denoised)
    paths_given = {"noisy": noisy, "clean": clean, "lpips_weights": lpips_weights, "out": out}
    check_paths({name: path for name, path in paths_given.items() if path is not None})
    check_texts({"baselines": baselines})
    check_number("--images", images, 0, whole=True)
    check_number("--report_images", report_images, 0, whole=True)
    check_number("--seed", seed, 0, LARGEST_SEED, whole=True)
    options = options or DenoiseOptions()
    names = _resolve_baselines(clean, noisy, noise, models, baselines, baseline_sigma)
    classic = make_baselines(names, noise, baseline_sigma)
    conventions = conventions or Conventions.choose(noise is not None)
    check_white(white)
    stacks = stacks or StackOptions()
    are_stacks = hold_stacks((each for each in (noisy, clean) if each is not None), stacks.axes)
    if are_stacks:
        classic = make_baselines(names, noise, baseline_sigma, clips=False)
    if not (classic or models or folders):
        raise ConfigError(
            "There is nothing to score: give --model, --denoised, or --baselines noisy."
        )
    # Flags that would have no effect are refused, as something else was surely meant.
    if baseline_sigma is not None and not any(method.computes for method in classic):
        _refuse(["--baseline_sigma"], "is for bm3d and nlm: name one of them in --baselines")
    if not models:
        how = [each for each in given_flags(options) if not each.startswith("--seed ")]
        if stacks.normalize != StackOptions.normalize:
            how.append(f"--normalize {stacks.normalize}")
        _refuse(how, "is for models, of which there is none: give --model")
    if noise is None and (seed or (options.seed and not models)):
        _refuse(["--seed"], "is for synthetic noise: give --noise")
    if clean is None:
        measures = {
            "--metrics": metrics is not None,
            "--lpips": lpips,
            "--lpips_weights": lpips_weights is not None,
        }
        compared = [flag for flag, is_given in measures.items() if is_given]
        # How results are rounded matters without clean pictures, too.
        how = given_flags(conventions)
        compared += [each for each in how if not each.startswith("--rounding ")]
        _refuse(compared, "is for the comparison with clean pictures: give --clean")
    if out is None and report_images not in (0, _SHOWN):
        _refuse(["--report_images"], "is for the report in a folder: give --out")
    wanted = parse_metrics(metrics or (STACK_METRICS if are_stacks else "psnr,ssim"))

    # Load everything before scoring anything, so that a wrong path is reported at once.
    source = noisy if noise is None else noise
    comparison: Comparison
    if are_stacks:
        _refuse_for_stacks(noise, white, lpips or lpips_weights)
        planes = StackPairs(
            noisy, clean, images, axes=stacks.axes, select=stacks.select, nan=stacks.nan
        )
        comparison = StackComparison(planes, conventions.for_stacks(), wanted, stacks)
        taken = "plane"
    else:
        _refuse_for_pictures(stacks, conventions)
        pairs = PicturePairs(source, clean, images, seed, white=white)
        if clean is not None and noisy is not None:
            pairs.check()  # reports a mismatched pair before any time is spent on scoring
        metric = None
        if clean is not None:
            weights = lpips_weights and expanded(lpips_weights)
            if lpips or (lpips is None and (weights or cached_weights().exists())):
                metric = LPIPS(weights)
        comparison = PictureComparison(pairs, conventions, wanted, metric, bool(lpips), white)
        taken = "picture"
    with contextlib.closing(comparison):
        classic = [comparison.baseline(method) for method in classic]
        methods = [comparison.denoised(folder) for folder in folders]
        if out is not None:
            out = expanded(out)
            _check_out(out)
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"The folder {out} cannot be created: {error.strerror}."
                ) from error
        methods += [comparison.model(path, options) for path in models]

        # Score.
        made = f"{noise}, seed {seed}" if noise else noisy or "none"
        number = len(comparison.names)
        count = f"{number} {taken}{'s' * (number > 1)}"
        facts = [f"{count}: noisy {made}, clean {clean or 'none'}"]
        if clean is not None:
            facts += comparison.facts()
            if note := fitting_note(wanted):
                facts.append(note)
        say("\n".join(facts))
        with_pictures = out is not None and report_images > 0 and source is not None
        shown = spread(range(number), report_images) if with_pictures else []
        scores, kept = [], {}
        for method in (*classic, *methods):
            result, kept[method.name] = score(method, comparison, shown)
            scores.append(result)
            cells = [f"{head} {text}" for head, text in result.cells().items() if head != "method"]
            say(f"{method.name}: {', '.join(cells)}")
        table = [each.cells() for each in scores]
        say(f"\n{format_table(table)}")
        notes: dict[str, Sequence[str]] = {
            f"What {each.method} did, judged without clean pictures": each.diagnosis.lines()
            for each in scores
            if each.diagnosis
        }
        for heading, lines in notes.items():
            say("\n".join(["", heading, *(f"  {line}" for line in lines)]))

        # Write.
        if out is None:
            return scores
        inputs = {"clean": clean, "noisy": noisy, "noise": noise}
        record = {
            **{name: None if each is None else str(each) for name, each in inputs.items()},
            "seed": None if noise is None else seed,
            "metrics": wanted,
            "conventions": dataclasses.asdict(comparison.conventions),
            **comparison.record(),
            "methods": [each.to_dict() for each in scores],
        }
        # What the reader should look at comes first, then the classic baselines.
        kept = {each.name: kept[each.name] for each in methods + classic if each.name != "noisy"}
        noise_lines = comparison.noise_notes() if shown else []
        if noise_lines:
            notes = {"The noise, judged without clean pictures": noise_lines, **notes}
        content = ReportContent(
            title=f"Denoising {clean if noisy is None else noisy}",
            facts=facts,
            table=table,
            notes=notes,
            pictures=_report_pictures(comparison, shown, scores, kept),
            curves={method.name: method.log for method in methods if method.log},
        )
        paths = [out / name for name in (_JSON, _CSV, _MARKDOWN)]
        try:
            write_json(paths[0], record)
            write_text(paths[1], csv_table(scores))
            write_text(paths[2], markdown_table(table))
            if report_images:
                paths.append(out / _REPORT)
                write_report(paths[-1], content)
                if content.pictures:
                    paths.append(out / _SHEET)
                    write_contact_sheet(paths[-1], content.pictures)
        except OSError as error:
            raise ConfigError(
                f"The results cannot be written to {out}: {error.strerror or error}."
            ) from error
        say(f"\nWritten: {', '.join(map(str, paths))}")
        return scores


def _paths(flag: str, given: Any) -> list[str]:
    """Returns one path or several as a list, each once."""
    if isinstance(given, str | Path):
        given = [given]
    if not isinstance(given, Iterable):
        raise ConfigError(f"{flag} takes a path, or several. Received: {brief(given)}")
    return [*dict.fromkeys(map(str, given))]


def _refuse(flags: Sequence[str], reason: str) -> None:
    """Raises a ConfigError for flags, if there are any, that would have no effect."""
    if flags:
        flag, _, _ = flags[0].partition(" ")
        raise ConfigError(f"{flag} {reason}, or omit it. Received: {' '.join(flags)}")


def _check_out(out: Path) -> None:
    """Raises a ConfigError if results would overwrite files that are none of an evaluation."""
    results = (_JSON, _CSV, _MARKDOWN, _REPORT, _SHEET)
    there = [name for name in results if (out / name).exists()]
    earlier: Any = None
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads((out / _JSON).read_text(encoding="utf-8"))
    is_ours = isinstance(earlier, dict) and {"conventions", "methods"} <= earlier.keys()
    if there and not is_ours:
        raise ConfigError(
            f"The folder {out} has a file {there[0]} that is not of an earlier evaluation there, "
            f"as its {_JSON} would show. Use another folder. Received: --out {out}"
        )


def parse_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `evaluate` for values by the names of the flags.

    Raises:
        ConfigError: if a name is unknown, or a value is out of range.

    Example:
        >>> parse_settings({"clean": "clean", "noise_sigma": 25, "border": 4})
    """
    own = {"conventions", "options", "stacks"}
    arguments = inspect.signature(evaluate).parameters.keys() - own
    noise_names = ("noise", "noise_sigma", "noise_peak")
    names = [field.name for field in dataclasses.fields(Conventions)]
    options_names = [field.name for field in dataclasses.fields(DenoiseOptions)]
    stack_names = ("axes", "select", "normalize", "nan")
    known = {*arguments, *noise_names, *names, *options_names, *stack_names}
    check_names("setting of evaluate", values, known)
    settings = {**values}
    found = (settings.pop(name, None) for name in noise_names)
    noise = Noise.parse(*(None if each is None else str(each) for each in found))
    chosen = {name: settings.pop(name, None) for name in names}
    stacks = StackOptions.pop(settings)
    seed = settings.get("seed")
    options = DenoiseOptions.pop(settings)  # with the seed, for R3
    if noise is not None and seed is not None:
        settings["seed"] = seed
    conventions = Conventions.choose(noise is not None, **chosen)
    return settings | {
        "noise": noise,
        "conventions": conventions,
        "options": options,
        "stacks": stacks,
    }


def _resolve_baselines(
    clean: str | Path | None,
    noisy: str | Path | None,
    noise: Noise | None,
    models: Sequence[str],
    baselines: str | None,
    sigma: str | None,
) -> str:
    """Returns the names of the baselines, if the given pictures suffice for what is scored."""
    if noisy is not None and noise is not None:
        raise ConfigError(
            "Give either noisy pictures (--noisy) or noise to add to the clean ones (--noise), "
            f"not both. Received: --noisy {noisy}, {noise}"
        )
    if clean is None and noisy is None:
        raise ConfigError(
            "Give noisy pictures with --noisy and, if there are any, the clean ones of the same "
            "names with --clean; or clean ones alone, and noise to add with --noise_sigma 25."
        )
    has_noisy = noisy is not None or noise is not None
    if baselines is None:
        baselines = "noisy" if has_noisy and clean is not None else ""
    if not has_noisy and (models or baselines):
        raise ConfigError(
            "Models and baselines need noisy pictures: give --noisy, or --noise_sigma 25 to add "
            "noise to the clean ones. Only --denoised works without them."
        )
    if sigma == BEST and clean is None:
        raise ConfigError("--baseline_sigma best needs the clean pictures: give --clean.")
    return baselines


def _refuse_for_stacks(noise: Noise | None, white: float | None, lpips: object) -> None:
    """Raises a ConfigError for what is for pictures only."""
    if noise:
        raise ConfigError(
            "Noise is added to pictures only: give the noisy stacks with --noisy. "
            f"Received: {noise}"
        )
    refuse_white(white)
    if lpips:
        raise ConfigError("--lpips is for pictures, and these are stacks: omit it.")


def _refuse_for_pictures(stacks: StackOptions, conventions: Conventions) -> None:
    """Raises a ConfigError for what is for stacks only."""
    stacks.refuse_for_pictures()
    if conventions.data_range == "stack":
        raise ConfigError(
            "--data_range stack is for stacks, and none of the pictures is one: omit it."
        )


def _report_pictures(
    comparison: Comparison,
    shown: Sequence[int],
    scores: Sequence[Scores],
    kept: Mapping[str, Mapping[int, np.ndarray]],
) -> list[ReportPicture]:
    pictures = []
    for index, (name, pair) in enumerate(zip(comparison.names, comparison.pairs(), strict=True)):
        if index in shown and kept and pair[0] is not None:
            denoised = {method: results[index] for method, results in kept.items()}
            captions = {each.method: each.caption(index) for each in scores}
            pictures.append(comparison.report_picture(name, pair, denoised, captions))
    return pictures
