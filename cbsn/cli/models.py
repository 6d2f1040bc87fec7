"""Lists the models that ship. See `--help`."""

import argparse
import json
from typing import Any

from cbsn.cli.parser import Parser, new_parser
from cbsn.errors import ModelError, plain_reason
from cbsn.models import SHIPPED


def main(flags: argparse.Namespace) -> None:
    """Prints the list."""
    try:
        models = json.loads((SHIPPED / "models.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The shipped models are not whole ({plain_reason(error)}). Install the package again."
        ) from error
    if flags.json:
        print(json.dumps(models, indent=2))
        return
    for name, facts in models.items():
        folder = SHIPPED / name.replace("-", "_")
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(
            f"{name}: {facts['description']}",
            f"  {facts['network']}; {facts['parameters']:,} parameters, {size:.1f} MB",
            f"  learned from {facts['data']}",
            f"  in {folder}",
            sep="\n",
        )
    print("", *_figures(models), "", sep="\n")
    print("Use one with: cbsn denoise photos --model NAME (or by --quality; see its --help)")


def _figures(models: dict[str, Any]) -> list[str]:
    """Returns the lines of a table: PSNR and SSIM of each model on each set of pictures."""
    rows = [["PSNR in dB, SSIM", "noisy", *models]]
    columns = [model["figures"] for model in models.values()]
    for pictures, first in columns[0].items():
        denoised = (column[pictures]["denoised"] for column in columns)
        rows.append([pictures, *map(_cell, (first["noisy"], *denoised))])
    speeds = (f"{m['seconds_per_megapixel']['bfloat16']:g}" for m in models.values())
    rows.append(["CPU seconds a megapixel, bfloat16", "", *speeds])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cell(figures: tuple[float, float] | None) -> str:
    return f"{figures[0]:.2f}, {figures[1]:.3f}" if figures else ""


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser("Lists the models that ship: their size, their data and their figures.")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser
