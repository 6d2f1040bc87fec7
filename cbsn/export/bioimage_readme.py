"""The README of a package for the BioImage Model Zoo."""

from collections.abc import Mapping, Sequence
from typing import Any

import cbsn
from cbsn.client.transport import DENOISED, IMAGES
from cbsn.export.bioimage_description import (
    COVER,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    Axis,
    learned_from,
    patches_of,
)
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.denoiser import Denoiser


def _padding(axes: Sequence[Axis], channels: int) -> str:
    """Returns how images of other sizes are given to a model of tiles, in Markdown."""
    least, steps = [axis.least for axis in axes], [axis.step for axis in axes]
    letters = ", ".join(axis.name for axis in axes)
    size, ends, last = "image.shape", "(0, count) for count in missing", ", np.newaxis"
    if channels > 1:
        letters, last = f"{letters}, channel", ""
        size, ends = f"image.shape[:{len(axes)}]", "*((0, count) for count in missing), (0, 0)"
    kept = ", ".join(f":image.shape[{place}]" for place in range(len(axes)))
    kept += "" if channels > 1 else ", 0"
    thin = ", as those of thin volumes" if len(axes) == 3 else ""
    return f"""

The model itself takes any size. The sizes above are those with which tiles fit together, and
programs may refuse others{thin}. Then pad an image by reflection, and crop the result:

```python
import numpy as np

least, steps = np.array({least}), np.array({steps})
missing = np.maximum(least - {size}, (least - {size}) % steps)
padded = np.pad(image, [{ends}], "reflect")  # [{letters}]
images = padded[np.newaxis, ...{last}].astype(np.float32)
# The model makes `denoised` of `images`.
result = denoised[0, {kept}]
```"""


def readme(
    description: Mapping[str, Any],
    denoiser: Denoiser,
    axes: Sequence[Axis],
    scale: Scale | None,
    training: Mapping[str, Any],
) -> str:
    """Returns the package's documentation, Markdown."""
    recipe, network = denoiser.recipe, denoiser.network
    letters = "".join(axis.name for axis in axes)
    shape = ", ".join(["batch", *letters, "channel"])
    sizes = ", ".join(
        f"{axis.name} from {axis.least}" + (f" in steps of {axis.step}" if axis.step > 1 else "")
        for axis in axes
    )
    if scale is None:
        values = (
            "Values go from 0 (black) to 1 (white): divide 8-bit images by 255, and multiply the "
            "result by 255. Results lie between 0 and 1."
        )
        if recipe.build_normalization().of_picture:
            values += (
                " The graph scales each image by its own mean and standard deviation, and undoes "
                "that."
            )
    else:
        values = (
            "Values are those of the stack's file, unscaled, and results are in the same units. "
            f"The graph scales them: {scale.low:g} becomes 0 and {scale.high:g} becomes 1, as in "
            "the stacks that the model was trained on. It fits images of the same camera with "
            "similar settings."
        )
    if axes[-1].halo:
        halos = ", ".join(f"{axis.halo} along {axis.name}" for axis in axes)
        tiles = (
            f"Large images may be cut into tiles with a halo (pixels at each end: {halos}), which "
            "changes nothing. At the image's own edges, where programs fill the halo, results may "
            "differ a little from those of cbsn."
        )
        tiles += _padding(axes, network.channels)
    else:
        tiles = (
            "Give the whole image at once: each result depends on all of it, so tiles would "
            "differ. Memory grows with the image."
        )
    steps = training.get("step")
    trained = f"{steps} steps" if isinstance(steps, int) else f"at most {recipe.max_steps} steps"
    cited = "".join(f"- {each['text']}, doi:{each['doi']}\n" for each in description["cite"])
    return f"""# {description["name"]}

{description["description"]}

![noisy on the left, denoised on the right]({COVER})

## Training

| | |
|---|---|
| recipe | `{recipe.name}` of cbsn {cbsn.__version__} |
| network | `{recipe.network}`, {network.count_params():,} parameters |
| objective | `{recipe.objective}`, which learns from {learned_from(recipe)} |
| training | {trained} of {recipe.batch_size} patches of {patches_of(recipe)} |
| normalization | `{recipe.normalization}`, in the graph |

All settings are in `rdf.yaml`, under `config`.

## Input and output

`{IMAGES}` and `{DENOISED}` are float32 [{shape}], of the same shape: {sizes}.

{values} No other preprocessing or postprocessing is needed.

{tiles}

## Validation

`{TEST_INPUT}` becomes `{TEST_OUTPUT}`: `bioimageio test PACKAGE.zip` checks it. The same images are
in `{SAMPLE_INPUT}` and `{SAMPLE_OUTPUT}`, to look at.

This says nothing about your images. With clean images of the same scenes, such as long exposures or
means of many frames, compare PSNR and SSIM before and after. Without them, look at noisy minus
denoised: it should be noise without any structure. `cbsn evaluate` does both. Images of another
camera, or with other settings, deserve a model of their own.

## Cite

{cited}"""
