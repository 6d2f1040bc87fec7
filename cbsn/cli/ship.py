"""Writes a trained model at half the size, in the form of those in `pretrained/`.

    cbsn ship --model checkpoints/NAME --out pretrained/NAME

The result is a saved model like any other. With `--start` and `--share` it keeps only a share, such
as 0.7, of what further training changed: networks between the weights at the start and at the end
of a run often keep the strengths of both (Wortsman et al., CVPR 2022, arXiv 2109.01903).
"""

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

from cbsn.cli.flags import MODEL, add_model, fraction
from cbsn.cli.parser import Parser, new_parser
from cbsn.errors import ConfigError, ModelError, plain_reason
from cbsn.files import expanded

if TYPE_CHECKING:
    from cbsn.recipes import Recipe

_ROUNDED = "weights"  # what such a model says of its weights, by this name


def main(flags: argparse.Namespace) -> None:
    """Writes the model, replacing an earlier one in the same place."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.models.folder import may_replace, save_model
    from cbsn.models.loading import load_model

    if flags.start is None and flags.share != 1:
        raise ConfigError(
            f"A share of what training changed needs the model that it started from: --start MODEL."
            f" Received: --share {flags.share:g}"
        )
    out = expanded(flags.out)
    if not may_replace(out, _ROUNDED):
        raise ConfigError(
            "The model needs a new folder, or that of an earlier one of this command, which it "
            f"replaces; something else is there. Received: --out {flags.out}"
        )
    recipe, network = load_model(flags.model_path)
    weights = network.get_weights()
    facts: dict[str, Any] = {_ROUNDED: "rounded to float16"}
    if flags.start is not None:
        first_recipe, first = load_model(flags.start)
        kinds = [(each.network, each.network_config) for each in (first_recipe, recipe)]
        if kinds[0] != kinds[1]:
            raise ModelError(
                f"--start must name the model that {flags.model_path} was trained further from, of "
                f"the same network. Received: {flags.start}, {_network(first_recipe)}, not "
                f"{_network(recipe)}"
            )
        ends = zip(first.get_weights(), weights, strict=True)
        weights = [(1 - flags.share) * a + flags.share * b for a, b in ends]
        facts["share_of_change"] = flags.share
    # Layers that compute in float32 whatever the policy, such as the last one, keep float32.
    network = recipe.build_network("float16", fresh=False)
    network.set_weights(weights)
    if not all(np.isfinite(value).all() for value in network.get_weights()):
        raise ModelError("The weights are too large for 16 bits, so they cannot be halved.")
    try:
        save_model(out, recipe, network, facts)
    except OSError as error:
        raise ModelError(
            f"{out} cannot be written: {plain_reason(error)}. Make its parent folder, or room."
        ) from error
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {recipe.name}, {network.count_params():,} parameters, {size / 1e6:.1f} MB")


def _network(recipe: "Recipe") -> str:
    config = ", ".join(f"{key} {value}" for key, value in recipe.network_config.items())
    return f"{recipe.network} with {config}"


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser("Writes a trained model with weights of half the size.")
    add = parser.add_argument
    add_model(parser, MODEL, required=True)
    add("--out", metavar="DIR", required=True, help="folder of the result")
    add("--start", metavar="MODEL", help="model that the training of --model started from")
    share = "share of the change from --start to take, from 0 to 1"
    add("--share", type=fraction, default=1.0, metavar="S", help=share)
    return parser
