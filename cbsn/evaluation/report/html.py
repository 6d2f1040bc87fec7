"""A report as one file of HTML, which needs nothing else: no network, no other file."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from cbsn.evaluation.report.chart import Chart
from cbsn.evaluation.report.content import ReportContent
from cbsn.evaluation.report.curves import VALIDATION, read_curves
from cbsn.evaluation.report.maps import HEAT, error_maps, residual_maps
from cbsn.evaluation.report.picture import ReportPicture
from cbsn.evaluation.report.pixels import data_uri, shrunk, to_image
from cbsn.evaluation.report.places import find_places
from cbsn.evaluation.report.table import mark_best
from cbsn.files import atomic_path

_CROP = 64
_CROPS = 3
_CROP_SHOWN = 256


def write_report(path: str | os.PathLike, content: ReportContent) -> None:
    """Writes a report, whole or not at all.

    Args:
        path: of the file; its folder must exist.
        content: what it shows.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if a picture is neither uint8, uint16 nor float.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = _breakable
    # The pictures are encoded one by one as they are written: all at once may take a GB.
    stream = environment.get_template("report.html.jinja").stream(
        content=content,
        rows=mark_best(content.table) if content.table else [],
        pictures=map(_picture, content.pictures),
        runs=_runs(content.curves),
        heat=HEAT,
        chart=Chart,
    )
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        stream.dump(file)


def _breakable(text: str) -> markupsafe.Markup:
    """Lets a line break after a slash, as names of models are long paths."""
    return markupsafe.escape(text).replace("/", markupsafe.Markup("/<wbr>"))


def _picture(picture: ReportPicture) -> dict[str, Any]:
    """What the template shows of a picture."""
    height, width = picture.noisy.shape[:2]
    shown = {label: shrunk(to_image(pixels)) for label, pixels in picture.sides}
    gain, residuals = residual_maps(picture)
    peak, errors = (None, {}) if picture.clean is None else error_maps(picture)
    return {
        "name": picture.name,
        "size": (width, height),
        "shown": shown["noisy"].size,
        "sides": [
            {"label": label, "caption": picture.captions.get(label, ""), "uri": data_uri(image)}
            for label, image in shown.items()
        ],
        "crops": [*_crops(picture)],
        "peak": peak,
        "gain": gain,
        "maps": [
            {
                "method": method,
                "error": data_uri(errors[method]) if errors else None,
                "residual": data_uri(residuals[method]),
            }
            for method in picture.denoised
        ],
    }


def _crops(picture: ReportPicture) -> Iterator[dict[str, Any]]:
    for rows, columns in find_places(picture, _CROP, _CROPS):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        zoom = max(1, _CROP_SHOWN // max(width, height))
        yield {
            "at": (columns.start, rows.start),
            "size": (width, height),
            "zoom": zoom,
            "sides": [
                {"label": label, "uri": data_uri(to_image(pixels[rows, columns]))}
                for label, pixels in picture.sides
            ],
        }


def _runs(curves: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """What the template shows of each run."""
    for method, path in curves.items():
        try:
            losses = read_curves(path)
        except OSError as error:
            # Not worth the loss of the report.
            yield {"method": method, "charts": [], "reason": f"{path}: {error.strerror}"}
            continue
        steps = [step for points in losses.values() for step, _ in points]
        validation = losses.pop(VALIDATION, None)
        parts = {"loss": losses, "PSNR in dB": {"validation": validation} if validation else {}}
        yield {
            "method": method,
            "charts": [
                Chart.plot(label, part, (min(steps), max(steps)))
                for label, part in parts.items()
                if part
            ],
            "reason": f"{path} holds no values yet",
        }
