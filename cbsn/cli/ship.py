"""Writes a trained model as those in `pretrained/` are written, in half the room.

    python -m cbsn ship --modelpath checkpoints/NAME --out pretrained/NAME

The result is a saved model like any other. With `--start` and `--share` it takes a part of what
training further has changed, such as 0.7: networks between the weights that a run started from and
those that it ended with often keep the good of both (Wortsman et al., CVPR 2022, arXiv 2109.01903).
"""

import argparse
from pathlib import Path
from typing import Any

from cbsn.cli.flags import MODEL, fraction, new_parser, run
from cbsn.errors import ConfigError, ModelError, plain_reason


def ship(
    model_path: str | Path, out: str | Path, start: str | Path | None = None, share: float = 1.0
) -> None:
    """Writes a saved model with weights in float16; an earlier one there is replaced.

    Args:
        model_path: as for `cbsn.models.loading.load_model`.
        out: the folder of the saved model; its parent must exist.
        start: the model that training started from, also as for `load_model`.
        share: float in [0, 1], how much is taken of what changed in the weights since `start`.

    Raises:
        ConfigError: a share without `start`.
        ModelError: if a model cannot be loaded, the networks differ, or it cannot be written.
    """
    from cbsn.files import expanded
    from cbsn.models.folder import save_model
    from cbsn.models.loading import load_model

    if start is None and share != 1:
        raise ConfigError(
            f"A share of what training changed needs the model that it started from: --start MODEL."
            f" Received: --share {share:g}"
        )
    recipe, network = load_model(model_path)
    facts = {"weights": "rounded to float16"}
    if start is not None:
        first_recipe, first = load_model(start)
        kinds = [(each.network, each.network_config) for each in (first_recipe, recipe)]
        if kinds[0] != kinds[1]:
            raise ModelError(
                f"--start must name the model that {model_path} was trained further from, of the "
                f"same network. Received: {start}, {_network(first_recipe)}, not {_network(recipe)}"
            )
        ends = zip(first.get_weights(), network.get_weights(), strict=True)
        network.set_weights([(1 - share) * a + share * b for a, b in ends])
        facts["share_of_change"] = share
    out = expanded(out)
    try:
        save_model(out, recipe, network, facts, float16=True)
    except OSError as error:
        raise ModelError(
            f"{out} cannot be written: {plain_reason(error)}. Make its parent folder, or room."
        ) from error
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {recipe.name}, {network.count_params():,} parameters, {size / 1e6:.1f} MB")


def _network(recipe: Any) -> str:
    config = ", ".join(f"{key} {value}" for key, value in recipe.network_config.items())
    return f"{recipe.network} with {config}"


def make_parser() -> argparse.ArgumentParser:
    """Returns the flags."""
    flags = new_parser("Write a trained model with weights of half the size.")
    add, unset = flags.add_argument, argparse.SUPPRESS
    add("--modelpath", metavar="MODEL", required=True, default=unset, help=MODEL)
    add("--out", metavar="DIR", required=True, default=unset, help="folder of the result")
    add("--start", metavar="MODEL", help="model that the training of --modelpath started from")
    add(
        "--share",
        type=fraction,
        default=1.0,
        help="how much of the change from --start is taken, from 0 to 1",
    )
    return flags


def command() -> None:
    """Runs the command."""
    run(lambda flags: ship(flags.modelpath, flags.out, flags.start, flags.share), make_parser())
