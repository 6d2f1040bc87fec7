"""Packages for the BioImage Model Zoo (bioimage.io), which other programs for microscopy read."""

import hashlib
import importlib.util
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cbsn.errors import ConfigError, ImageError, ModelError, plain_reason
from cbsn.export.bioimage_description import (
    COVER,
    MODEL,
    README,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    describe,
    exactness_of,
    parse_author,
    spatial_axes,
    tolerance_of,
)
from cbsn.export.bioimage_readme import readme
from cbsn.export.bioimage_sample import make_sample, read_sample, write_cover, write_tiff
from cbsn.export.export import OPSET, write_onnx
from cbsn.export.graph import stack_scale
from cbsn.files import atomic_path, captured_stderr
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines.onnxruntime import load_onnxruntime

LICENSE = "Apache-2.0"  # that of cbsn, and of the models that ship

_DESCRIPTION = "rdf.yaml"
_NEEDED = ("bioimageio.spec", "onnxruntime", "tf2onnx", "onnx")
_TEST = 128  # pixels: height and width of the image for tests, unless tiles or the sample differ
_TEST_PLANES = 16
# bioimageio.spec accepts no tests whose values are all closer to 0.
_LEAST_VALUE = 1e-4
_PRECISION = 1e-5  # of the largest value that a network sees: what float32 may lose


def check_bioimage(authors: Sequence[str], license: str = LICENSE) -> list[dict[str, str]]:
    """Returns the authors that `--author` names, see `parse_author`.

    Raises:
        ConfigError: if there are none, one is malformed, the license is unknown, or a package is
            missing.
    """
    absent = [name for name in _NEEDED if not _is_installed(name)]
    if absent:
        raise ConfigError(
            f"{' and '.join(absent)} not installed: pip install 'cbsn[bioimage]' (from a clone: "
            "pip install '.[bioimage]'), or omit bioimage from --format. Received: --format "
            "bioimage"
        )
    if not authors:
        raise ConfigError(
            "A package for the BioImage Model Zoo names the model's authors, whom its users can "
            "ask: --author 'Ada Lovelace, University of London'. Received: --format bioimage"
        )
    spec = _library()
    parsed = [parse_author(text) for text in authors]
    with spec.ValidationContext(perform_io_checks=False):
        for text, author in zip(authors, parsed, strict=True):
            try:
                spec.generic.v0_3.Author.model_validate(author)
            except ValueError as error:
                # All else is checked by `parse_author`.
                raise ConfigError(
                    "An ORCID has a last digit that fits the others; this one does not. "
                    f"Received: --author {text}"
                ) from error
        try:
            spec.generic.v0_3.LicenseId(license)
        except ValueError as error:
            raise ConfigError(
                "--license takes an SPDX identifier, such as Apache-2.0, MIT or CC-BY-4.0. "
                f"Received: --license {license}"
            ) from error
    return parsed


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it is part of
        return False


def _library() -> ModuleType:
    try:
        import bioimageio.spec.generic.v0_3
    except Exception as error:  # it makes a cache folder, and reads settings from files
        raise ConfigError(
            f"bioimageio.spec cannot be loaded ({plain_reason(error)}). Received: --format bioimage"
        ) from error
    return bioimageio.spec


def make_test(
    denoiser: Denoiser,
    sample: str | Path | None = None,
    channel: int | None = None,
    axes: str | None = None,
) -> np.ndarray:
    """Returns a noisy image for the test of a package.

    Args:
        denoiser: what is exported.
        sample: an image of the user's whose middle is taken: a picture, or a stack for a model that
            was trained on stacks. Default None, a simulated one.
        channel: of a model that was trained on stacks; see `GraphDenoiser`. Default None.
        axes: letters of the axes of a sample that does not say what they are. Default None.

    Returns:
        float32 [1, H, W, C], or [1, Z, H, W, C] for a model of volumes.

    Raises:
        ConfigError: if there is no such channel, or axes are given for a picture.
        ImageError: if the sample cannot be used.
    """
    scale = stack_scale(denoiser, channel)
    spatial = spatial_axes(denoiser, scale)
    sizes = []
    for axis in spatial:
        missing = max(0, (_TEST_PLANES if axis.name == "z" else _TEST) - axis.least)
        sizes.append(axis.least + -(-missing // axis.step) * axis.step)
    if sample is None:
        return make_sample(denoiser, sizes, scale)[None]
    return read_sample(sample, denoiser, spatial, sizes, scale, channel, axes)[None]


def write_bioimage(
    path: Path,
    denoiser: Denoiser,
    noisy: np.ndarray,
    *,
    name: str,
    authors: Sequence[Mapping[str, str]],
    license: str = LICENSE,
    channel: int | None = None,
    sample: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes a denoiser as a package for the BioImage Model Zoo, which `bioimageio test` accepts.

    The package is a ZIP archive with an ONNX model, as `write_onnx` makes it but with the strengths
    of the denoiser, an image before and after as a test, a cover, a README, and a description of
    it all, version 0.5. It is made without the internet, and checked before it gets its name.

    There are no weights for TensorFlow: bioimageio.core would prefer them to ONNX, and unpack them
    into the current folder; and they need a TensorFlow at least as new as the one that wrote them.

    Args:
        path: the file to write, `*.zip`; its folder must exist.
        denoiser: what to export, with its R3, self-ensemble and strengths; float32.
        noisy: from `make_test`.
        name: of the model.
        authors: from `check_bioimage`.
        license: SPDX identifier. Default "Apache-2.0".
        channel: of a model that was trained on stacks; see `GraphDenoiser`. Default None.
        sample: the file that `noisy` is from, for messages. Default None, it was simulated.
        facts: what else the description says about the model. Default None, nothing.
        training: what the model says about its training. Default None, nothing.

    Raises:
        ConfigError: if a package is missing, or the network is not float32.
        ImageError: if the image is no test, as values are too small or too large.
        ModelError: if the model cannot be converted, the converted one gives other results, its
            result is black, or the description is not accepted.

    Example:
        >>> authors, noisy = check_bioimage(["Ada Lovelace"]), make_test(denoiser)
        >>> write_bioimage(Path("cells.zip"), denoiser, noisy, name="cells", authors=authors)
    """
    scale = stack_scale(denoiser, channel)
    axes = spatial_axes(denoiser, scale)
    denoised = _denoised(denoiser, noisy, scale)
    _check_values(noisy, denoised, sample)
    tolerance = tolerance_of(denoised, scale)
    training = training or {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_onnx(folder / MODEL, denoiser, channel=channel, strengths=False)
        for images, test, shown in (
            (noisy, TEST_INPUT, SAMPLE_INPUT),
            (denoised, TEST_OUTPUT, SAMPLE_OUTPUT),
        ):
            np.save(folder / test, images)
            write_tiff(folder / shown, images[0])
        write_cover(folder / COVER, noisy[0], denoised[0])
        _check_model(folder, tolerance, scale, sample)
        described = describe(
            denoiser,
            axes,
            scale,
            name=name,
            authors=authors,
            license=license,
            tolerance=tolerance,
            checksums={each.name: _sha256(each) for each in folder.iterdir()},
            opset=OPSET,
            facts=facts or {},
            training=training,
        )
        text = readme(described, denoiser, axes, scale, training)
        (folder / README).write_text(text, encoding="utf-8", newline="\n")
        _write_description(folder, described)
        with atomic_path(path) as unfinished:
            _write_archive(unfinished, folder)


def _denoised(denoiser: Denoiser, noisy: np.ndarray, scale: Scale | None) -> np.ndarray:
    """Returns what a denoiser makes of pictures [N, H, W, C] or volumes [N, Z, H, W, C]."""
    if scale is None:
        return np.stack([denoiser(image, white=1.0) for image in noisy])
    volumes = noisy if denoiser.of_volumes else [noisy]
    # The graph does not look for faulty pixels.
    found = [denoiser.scaled(each, scale, faults=[None] * len(each)) for each in volumes]
    return np.stack(found) if denoiser.of_volumes else found[0]


def _check_values(noisy: np.ndarray, denoised: np.ndarray, sample: str | Path | None) -> None:
    """Raises an error if the values of a test are too small for bioimageio.spec."""
    allowed = f"The Model Zoo accepts no test whose values all lie within {_LEAST_VALUE:g} of 0"
    if np.abs(noisy).max() < _LEAST_VALUE:
        raise ImageError(
            f"{allowed}: use another --sample, or train on a stack of larger values. Received: at "
            f"most {np.abs(noisy).max():g}{_named(sample)}"
        )
    if np.abs(denoised).max() < _LEAST_VALUE:
        advice = "use another --sample" if sample else "give an image of yours by --sample"
        raise ModelError(
            f"{allowed}, and the model makes such a black image of the one for tests: train it "
            f"longer, or {advice}. Received: at most {np.abs(denoised).max():g}{_named(sample)}"
        )


def _named(sample: str | Path | None) -> str:
    return f", --sample {sample}" if sample else ""


def _check_model(
    folder: Path,
    tolerance: Mapping[str, Any],
    scale: Scale | None,
    sample: str | Path | None,
) -> None:
    """Raises an error unless the ONNX model does what the denoiser did."""
    session = load_onnxruntime().InferenceSession(
        folder / MODEL, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    found = session.run(None, {given.name: np.load(folder / TEST_INPUT)})[0]
    expected = np.load(folder / TEST_OUTPUT)
    off = np.abs(found - expected)
    allowed = tolerance["absolute_tolerance"] + tolerance["relative_tolerance"] * np.abs(expected)
    share = tolerance["mismatched_elements_per_million"] * 1e-6
    if np.mean(off > allowed) > share:
        if off.max() <= exactness_of(expected, scale):
            advice = "another one by --sample" if sample else "one of yours by --sample"
            raise ImageError(
                "The results of the image for tests are too close to 0 for a tolerance that the "
                f"Model Zoo accepts: give {advice}. Received: values up to {expected.max():g}"
                f"{_named(sample)}"
            )
        if scale and sample:
            span = scale.high - scale.low
            largest = np.abs(np.load(folder / TEST_INPUT) - scale.mean).max()
            if off.max() < _PRECISION * largest and largest > 100 * span:
                raise ImageError(
                    "The image for tests holds values so far from those that the model was trained "
                    "on that engines differ by their rounding: use another --sample. Received: "
                    f"{largest:g} from the mean{_named(sample)}"
                )
        raise ModelError(
            "ONNX Runtime does not give the results of TensorFlow here, so the package would fail "
            f"its test: try other versions of onnxruntime and tf2onnx. Received: {off.max():g} off"
        )


def _write_description(folder: Path, described: Mapping[str, Any]) -> None:
    """Checks the description, with the files that it names, and writes it."""
    spec = _library()
    # It would look up whether GitHub knows an account. Nothing else needs the internet, as there
    # are no URLs.
    offline = dict(described)
    offline["authors"] = [
        {key: value for key, value in author.items() if key != "github_user"}
        for author in described["authors"]
    ]
    context = spec.ValidationContext(root=folder, perform_io_checks=True, log_warnings=False)
    with captured_stderr(shown=False):
        checked = spec.build_description(offline, context=context)
    if isinstance(checked, spec.InvalidDescr):
        errors = [each for detail in checked.validation_summary.details for each in detail.errors]
        what = "; ".join(f"{'.'.join(map(str, each.loc))}: {each.msg}" for each in errors[:3])
        raise ModelError(
            "bioimageio.spec does not accept the description of the package: try another version "
            f"of it. Received: {what}"
        )
    spec.save_bioimageio_yaml_only(dict(described), folder / _DESCRIPTION)


def _write_archive(path: Path, folder: Path) -> None:
    """Writes the files of a folder to a ZIP archive, the description first."""
    names = sorted((each.name for each in folder.iterdir()), key=lambda n: (n != _DESCRIPTION, n))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
