"""Writes a trained model as those in `pretrained/` are written, in half the room.

    python -m cbsn.ship --modelpath checkpoints/NAME --out pretrained/NAME

The result is a saved model like any other.
"""

import argparse
from pathlib import Path

from cbsn import cli
from cbsn.errors import ModelError, plain_reason


def ship(model_path: str | Path, out: str | Path) -> None:
    """Writes a saved model with weights in float16; an earlier one there is replaced.

    Args:
        model_path: as for `cbsn.model_path.load_model`.
        out: the folder of the saved model; its parent must exist.

    Raises:
        ModelError: if the model cannot be loaded, or cannot be written.
    """
    from cbsn.files import expanded
    from cbsn.model_folder import save_model
    from cbsn.model_path import load_model

    recipe, network = load_model(model_path)
    out = expanded(out)
    try:
        save_model(out, recipe, network, {"weights": "rounded to float16"}, float16=True)
    except OSError as error:
        raise ModelError(
            f"{out} cannot be written: {plain_reason(error)}. Make its parent folder, or room."
        ) from error
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {recipe.name}, {network.count_params():,} parameters, {size / 1e6:.1f} MB")


def make_parser() -> argparse.ArgumentParser:
    """Returns the flags."""
    flags = cli.make_parser("Write a trained model with weights of half the size.")
    add, unset = flags.add_argument, argparse.SUPPRESS
    add("--modelpath", metavar="MODEL", required=True, default=unset, help=cli.MODEL)
    add("--out", metavar="DIR", required=True, default=unset, help="folder of the result")
    return flags


if __name__ == "__main__":
    cli.run(lambda flags: ship(flags.modelpath, flags.out), make_parser())
