"""Packages for the BioImage Model Zoo, checked by bioimageio.spec and bioimageio.core.

Without the internet: a package names no URL, so they have nothing to look up. Proxies that are not
there make any request fail at once.
"""

import dataclasses
import inspect
import json
import os
import socket
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.errors import ConfigError, ImageError, ModelError
from cbsn.export import bioimage
from cbsn.export.bioimage import check_bioimage, make_test, write_bioimage
from cbsn.export.bioimage_description import (
    EXACT,
    Axis,
    parse_author,
    spatial_axes,
    tolerance_of,
)
from cbsn.export.bioimage_readme import readme
from cbsn.export.bioimage_sample import make_sample, read_sample, write_cover
from cbsn.export.papers import papers_of
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.networks import NETWORKS
from cbsn.networks.masking import Masking
from cbsn.objectives import OBJECTIVES
from cbsn.recipes import RECIPES, customised

AUTHORS = [{"name": "Ada Lovelace", "affiliation": "University of London"}]
SMALL = {"filters": 4, "num_modules": 1}
UNET = {"filters": 4, "depth": 2}
FILES = {
    *("rdf.yaml", "README.md", "cover.png", "model.onnx"),
    *("test_input.npy", "test_output.npy", "sample_input.tif", "sample_output.tif"),
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
NOWHERE = dict.fromkeys(_PROXIES, "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def core():
    """`bioimageio.core`, where the extra bioimage is installed."""
    for name in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(name, reason="the extra bioimage is not installed")
    pytest.importorskip("bioimageio.spec", reason="the extra bioimage is not installed")
    return pytest.importorskip("bioimageio.core", reason="the extra bioimage is not installed")


@pytest.fixture(scope="module")
def package(core, make_denoiser, make_stack_denoiser, tmp_path_factory):
    """A model, and its package: by kind, of pictures or stacks, with or without tiles."""
    made = {}

    def build(kind):
        if kind in made:
            return made[kind]
        channel = None
        if kind == "pictures, whole":  # by their own mean and deviation
            denoiser = make_denoiser("cbsn", SMALL, strength=0.75)
        elif kind == "pictures, tiles":
            denoiser = make_denoiser("distill", UNET)
        elif kind == "stacks, tiles":
            denoiser = make_stack_denoiser("n2v-unet", {**UNET, "channels": 1})
            channel = 1
        elif kind == "volumes, tiles":
            config = {"filters": 2, "depth": 1, "z_halvings": 1, "channels": 1}
            denoiser = make_stack_denoiser("n2v-unet-3d", config, strength=0.5)
            channel = 1
        elif kind == "stacks, tiles in eight orientations":
            denoiser = make_stack_denoiser(self_ensemble=True, normalization="standardize")
        else:  # squeeze-and-excitation takes means of the whole plane
            config = {"filters": 8, "depth": 2, "channels": 1}
            denoiser = make_stack_denoiser("n2n-resunet", config)
        path = tmp_path_factory.mktemp("packages") / "model.zip"
        noisy = make_test(denoiser, channel=channel)
        write_bioimage(path, denoiser, noisy, name="cells", authors=AUTHORS, channel=channel)
        assert [*path.parent.iterdir()] == [path]
        made[kind] = denoiser, path
        return made[kind]

    return build


KINDS = ("pictures, whole", "pictures, tiles", "stacks, tiles", "stacks, whole", "volumes, tiles")


def _bioimageio(*arguments, folder):
    """Runs the command of bioimageio.core; it may write into its folder and its cache only."""
    environment = {**os.environ, **NOWHERE, "BIOIMAGEIO_CACHE_PATH": str(folder / "cache")}
    command = [sys.executable, "-m", "bioimageio.core", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bioimageio_test_accepts_it(package, kind, tmp_path):
    _, path = package(kind)
    run = _bioimageio("test", path, "--summary", tmp_path / "summary.json", folder=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["status"] == "passed"
    names = [detail["name"] for detail in summary["details"] if detail["status"] == "passed"]
    assert "Reproduce test outputs from test inputs (onnx)" in names
    assert sum(name.startswith("Run onnx inference") for name in names) == 6
    warned = [each["msg"] for detail in summary["details"] for each in detail["warnings"]]
    # The only thing that is missing: no author has a GitHub account here.
    (missing,) = [text for text in warned if "all elements agree" not in text]
    assert "github_user" in missing
    assert {each.name for each in tmp_path.iterdir()} <= {"summary.json", "cache"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_format_is_valid(package, kind, tmp_path):
    _, path = package(kind)
    from bioimageio.spec import ValidationContext, load_description, validate_format
    from ruyaml import YAML

    loaded = load_description(path)
    assert loaded.validation_summary.status == "valid-format", loaded.validation_summary.format()
    with zipfile.ZipFile(path) as archive:
        assert {*archive.namelist()} == FILES
        assert archive.namelist()[0] == "rdf.yaml"
        archive.extractall(tmp_path)
    content = YAML(typ="safe").load(tmp_path / "rdf.yaml")
    summary = validate_format(content, context=ValidationContext(root=tmp_path))
    assert summary.status == "valid-format"
    assert "http" not in (tmp_path / "rdf.yaml").read_text("utf-8")
    with Image.open(tmp_path / "cover.png") as cover:
        assert cover.width == 2 * cover.height
    assert (tmp_path / "cover.png").stat().st_size < 500_000  # what the zoo asks for
    noisy = np.load(tmp_path / "test_input.npy")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "sample_input.tif"), noisy.squeeze())


def _predicted(core, path, images, names=None, **options):
    """What bioimageio.core makes of [N, H, W, C], an array or a tensor of named axes."""
    from bioimageio.core import Tensor, create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.spec import load_model_description

    model = load_model_description(path)
    with create_prediction_pipeline(model) as pipeline:
        given = Tensor(images, dims=names) if names else images
        sample = create_sample_for_model(model, inputs={"images": given})
        predict = pipeline.predict_sample_without_blocking
        if "ns" in options:
            predict = pipeline.predict_sample_with_blocking
        result = predict(sample, **options).members["denoised"].data.to_numpy()
    assert (result.shape, result.dtype) == (images.shape, np.float32)
    return result


def _noisy(denoiser, scale, random, shape):
    """Images whose values the denoiser knows, float32 [*shape, C]."""
    shape = (*shape, denoiser.network.channels)
    if scale is None:
        return random.random(shape, np.float32)
    return random.normal(scale.mean, scale.deviation, shape).astype(np.float32)


def _by_cbsn(denoiser, images, scale):
    if scale is None:
        return np.stack([denoiser(image) for image in images])
    if denoiser.of_volumes:
        return np.stack([denoiser.scaled(image, scale) for image in images])
    return denoiser.scaled(images, scale)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "stacks, tiles in eight orientations"])
def test_predictions_of_other_sizes_are_the_denoisers(core, package, kind, random):
    denoiser, path = package(kind)
    channel = 1 if kind in ("stacks, tiles", "volumes, tiles") else 0
    scale = denoiser.scaling and denoiser.scaling.of(channel)
    axes = spatial_axes(denoiser, scale)
    halos = [axis.halo for axis in axes]
    padding = [(0, 0), *((halo, halo) for halo in halos), (0, 0)]
    inner = (slice(None), *(slice(halo, -halo or None) for halo in halos))
    assert all((halo > 0) == ("tiles" in kind) for halo in halos)
    # Valid sizes that are those of no test.
    sizes = [axis.least + (7 - number) * axis.step for number, axis in enumerate(axes)]
    images = _noisy(denoiser, scale, random, (2, *sizes))
    atol = tolerance_of(images, scale)["absolute_tolerance"]
    expected = _by_cbsn(denoiser, images, scale)
    result = _predicted(core, path, images, skip_input_padding=True, skip_output_cropping=True)
    np.testing.assert_allclose(result, expected, rtol=0, atol=atol)
    assert np.abs(expected - images).max() > 100 * atol  # something was done

    # As it predicts by default, filling the halo at the image's edges by reflection.
    result = _predicted(core, path, images)
    whole = _by_cbsn(denoiser, np.pad(images, padding, "symmetric"), scale)[inner]
    np.testing.assert_allclose(result, whole, rtol=0, atol=atol)
    np.testing.assert_allclose(result[inner], expected[inner], rtol=0, atol=atol)
    # In tiles, the same.
    for blocks in (1, 2) if halos[0] else ():
        tiled = _predicted(core, path, images, ns=blocks)
        np.testing.assert_allclose(tiled, result, rtol=0, atol=atol)

    # Sizes that are not declared: with names of the axes, and padded as the README says.
    sizes = [max(1, axis.least // 2 - number) for number, axis in enumerate(axes)]
    images = images[(slice(None), *(slice(size) for size in sizes))]
    with pytest.raises(ValueError, match="does not map to axes"):
        _predicted(core, path, images)
    names = ("batch", *(axis.name for axis in axes), "channel")
    result = _predicted(core, path, images, names)
    whole = _by_cbsn(denoiser, np.pad(images, padding, "symmetric"), scale)[inner]
    np.testing.assert_allclose(result, whole, rtol=0, atol=atol)
    if halos[0]:
        channels = denoiser.network.channels
        image = images[0] if channels > 1 else images[0, ..., 0]
        images = _padded(readme_of(path), image)
        assert images.shape == (1, *(axis.least for axis in axes), channels)
        assert _predicted(core, path, images).shape == images.shape


def readme_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read("README.md").decode()


def _padded(text, image):
    """Runs a README's example of padding; the `denoised` that it is given is what it has padded."""
    code = text.partition("```python\n")[2].partition("```")[0]
    before, _, after = code.partition("# The model")
    scope = {"image": image}
    exec(before, scope)
    scope["denoised"] = scope["images"]
    exec("# The model" + after, scope)
    np.testing.assert_array_equal(scope["result"], image.astype(np.float32))
    return scope["images"]


def test_the_readme_pads_images_to_sizes_that_are_declared(random):
    axes = [Axis("z", 34, 2, 16), Axis("y", 68, 4, 32), Axis("x", 68, 4, 32)]
    scale, described = Scale(0.0, 1.0, 0.5, 0.1), {"name": "a", "description": "b", "cite": []}
    for channels in (1, 3):
        text = readme(described, _denoiser(channels), axes, scale, {})
        for given, expected in (
            ((24, 70, 68), (34, 72, 68)),
            ((33, 20, 101), (34, 68, 104)),
            ((1, 68, 72), (34, 68, 72)),
            ((36, 68, 69), (36, 68, 72)),
        ):
            image = random.random((*given, *((3,) if channels == 3 else ())))
            assert _padded(text, image).shape == (1, *expected, channels)


@pytest.mark.slow
def test_what_the_model_says_is_in_the_description(package, tmp_path):
    from bioimageio.spec import load_model_description

    denoiser, path = package("stacks, tiles")
    model = load_model_description(path)
    assert model.name == "cells - n2v-unet denoising"
    assert [author.name for author in model.authors] == ["Ada Lovelace"]
    assert str(model.cite[0].doi) == "10.48550/arXiv.1811.10980"
    assert str(model.license) == "Apache-2.0"
    assert {"denoising", "2d", "self-supervised", "unet"} <= {*model.tags}
    (given,), (made,) = model.inputs, model.outputs
    assert [str(axis.id) for axis in given.axes] == ["batch", "y", "x", "channel"]
    (least,) = {axis.size.min for axis in given.axes[1:3]}
    (halo,) = {axis.halo for axis in made.axes[1:3]}
    assert halo == denoiser.network.halo and least > 2 * halo
    assert [str(axis.size.axis_id) for axis in made.axes[1:3]] == ["y", "x"]
    scale = denoiser.scaling.of(1)
    (tolerance,) = model.config.bioimageio.reproducibility_tolerance
    assert tolerance.absolute_tolerance >= EXACT * (scale.high - scale.low)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("README.md").decode()
    assert f"{scale.low:g} becomes 0 and {scale.high:g} becomes 1" in text
    assert f"{halo} along y" in text and "## Validation" in text


@pytest.mark.slow
def test_nothing_is_asked_of_the_internet(core, make_denoiser, tmp_path, monkeypatch):
    """Not even whether an author's GitHub account exists."""

    def refuse(*arguments, **options):
        raise AssertionError("a request")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    authors = check_bioimage(["Ada Lovelace, 0000-0002-1825-0097, @ada"])
    path, denoiser = tmp_path / "model.zip", make_denoiser("distill", UNET)
    write_bioimage(path, denoiser, make_test(denoiser), name="photographs", authors=authors)
    with zipfile.ZipFile(path) as archive:
        assert "github_user: ada" in archive.read("rdf.yaml").decode()


@pytest.mark.parametrize(
    ("author", "license", "message"),
    [
        ("Ada", "Mine", r"takes an SPDX identifier.*Received: --license Mine"),
        ("Ada, 0000-0002-1825-0090", "MIT", r"ORCID.*Received: --author Ada, 0000-0002-1825-0090"),
        ("Ada / Bob", "MIT", r"takes no names with / or .*Received: --author Ada / Bob"),
    ],
)
def test_what_the_description_does_not_allow_is_refused(core, author, license, message):
    with pytest.raises(ConfigError, match=message):
        check_bioimage([author], license)


@pytest.mark.slow
def test_a_description_that_is_not_accepted_is_told(core, make_denoiser, tmp_path):
    denoiser = make_denoiser("distill", UNET)
    options = {"name": "x", "authors": [{"name": "Ada", "unknown": "field"}]}
    with pytest.raises(ModelError, match=r"does not accept.*Received: authors\.0\.unknown"):
        write_bioimage(tmp_path / "model.zip", denoiser, make_test(denoiser), **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_model_that_does_something_else_is_refused(core, make_denoiser, tmp_path, monkeypatch):
    denoised = bioimage._denoised
    monkeypatch.setattr(bioimage, "_denoised", lambda *each: denoised(*each) + 2 * EXACT)
    denoiser = make_denoiser("distill", UNET)
    options = {"name": "x", "authors": AUTHORS}
    with pytest.raises(ModelError, match=r"would fail its test.*Received: 0\.000\d+ off"):
        write_bioimage(tmp_path / "model.zip", denoiser, make_test(denoiser), **options)
    assert not [*tmp_path.iterdir()]


class _Session:
    """Stands in for ONNX Runtime's, whose result is off."""

    def __init__(self, images, off):
        self.get_inputs = lambda: [types.SimpleNamespace(name="images")]
        self.run = lambda names, given: [images + off]


@pytest.mark.parametrize(
    ("value", "off", "largest", "error", "message"),
    [
        # As near as engines are, but the tolerance that the description accepts is a relative one.
        (1e-3, 5e-5, 0.5, ImageError, r"too close to 0.*another one by --sample.*a\.tif"),
        # What float32 loses of values as large as these.
        (0.5, 5e-4, 1e3, ImageError, r"so far from.*another --sample.*1000 from the mean.*a\.tif"),
        (0.5, 5e-4, 0.5, ModelError, r"other versions of onnxruntime.*Received: 0\.0005\d* off"),
    ],
)
def test_what_differs_is_blamed_on_the_sample_only_if_it_is(
    monkeypatch, tmp_path, value, off, largest, error, message
):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra bioimage is not installed")
    denoised, scale = np.full((1, 4, 4, 1), value, np.float32), Scale(0.0, 1.0, 0.0, 0.3)
    np.save(tmp_path / bioimage.TEST_INPUT, np.full_like(denoised, largest))
    np.save(tmp_path / bioimage.TEST_OUTPUT, denoised)
    session = _Session(denoised, off)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *each, **options: session)
    with pytest.raises(error, match=message):
        bioimage._check_model(tmp_path, tolerance_of(denoised, scale), scale, "a.tif")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(bioimage, "_NEEDED", ("onnx_that_is_not_there", "bioimageio_not.spec"))
    message = r"onnx_that_is_not_there and bioimageio_not\.spec not installed: pip install 'cbsn\["
    with pytest.raises(ConfigError, match=message):
        check_bioimage(["Ada Lovelace"])


def test_authors_are_needed(core):
    with pytest.raises(ConfigError, match=r"--author 'Ada Lovelace, University of London'"):
        check_bioimage([])
    assert check_bioimage(["Ada Lovelace", "Grace Hopper, US Navy"]) == [
        {"name": "Ada Lovelace"},
        {"name": "Grace Hopper", "affiliation": "US Navy"},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada Lovelace", {}),
        ("Ada Lovelace, @ada", {"github_user": "ada"}),
        (
            "Ada Lovelace, King's College, London, 0000-0002-1825-009X, @ada",
            {
                "affiliation": "King's College, London",
                "orcid": "0000-0002-1825-009X",
                "github_user": "ada",
            },
        ),
    ],
)
def test_an_author_s_parts(text, expected):
    assert parse_author(text) == {"name": "Ada Lovelace", **expected}


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "@ada", ", London", "Ada,", "Ada / Co", "Ada, @ada, @lovelace"),
        *("Ada, @a b", "Ada, @", "Ada, @-a", "Ada, @a_b", "Ada, @" + "a" * 40),
    ],
)
def test_what_is_no_author(text):
    with pytest.raises(ConfigError, match=r"Received: --author"):
        parse_author(text)


def _axes(recipe, scale=None, network_config=None, **options):
    recipe = customised(recipe, **(network_config or {}))
    if scale:
        recipe = dataclasses.replace(recipe, scaling=Scaling("given", (scale,)).to_dict())
    return spatial_axes(Denoiser(recipe, recipe.build_network(), DenoiseOptions(**options)), scale)


def test_images_that_are_scaled_by_themselves_are_taken_whole():
    whole = [Axis("y", 16, 1, 0), Axis("x", 16, 1, 0)]
    assert _axes("cbsn", network_config=SMALL) == whole
    # So are those of networks that are not local, sub-images, R3, and turned tiles on a grid.
    assert _axes("n2n-resunet", network_config=UNET) == whole
    assert _axes("apbsn", network_config=SMALL) == whole
    assert _axes("apbsn", network_config=SMALL, r3=False) == whole
    assert _axes("distill", network_config=UNET, self_ensemble=True) == whole


def test_others_may_be_cut_into_tiles():
    scale = Scale(100.0, 600.0, 150.0, 40.0)
    halo = customised("n2v-unet", **UNET).build_network().halo
    assert halo % 4 == 0
    # As small and as near to each other as tiles can be that lie on the network's grid.
    expected = [Axis("y", 2 * halo + 4, 4, halo), Axis("x", 2 * halo + 4, 4, halo)]
    assert _axes("n2v-unet", scale, UNET) == expected
    (axis, _) = _axes("cbsn", scale, SMALL, self_ensemble=True)
    # Without a grid, turning changes nothing, and any larger tile fits whose deviation counts.
    assert axis.halo > 0 and axis[1:3] == (13, 1) and 2 * axis.halo + 1 < 13
    assert 1 / 13 < scale.deviation / (scale.high - scale.low) < 1 / 12
    # A deviation so low that the least one counts, which depends on the size.
    assert _axes("n2v-unet", dataclasses.replace(scale, deviation=5.0), UNET)[0].halo == 0


def test_volumes_have_one_more_axis():
    scale = Scale(100.0, 600.0, 150.0, 40.0)
    recipe = RECIPES["n2v-unet-3d"]
    network = recipe.build_network()
    options = DenoiseOptions()
    denoiser = types.SimpleNamespace(recipe=recipe, network=network, options=options, r3=False)
    z, y, x = spatial_axes(denoiser, scale)
    assert (z.name, y.name, x.name) == ("z", "y", "x")
    assert y[1:] == x[1:] and y.halo == network.halo
    assert z == ("z", 34, 2, 16) == ("z", 2 * network.z_halo + 2, network.z_grid, network.z_halo)
    assert y == ("y", 68, 4, 32)
    # Where tiles do not fit, thin volumes do.
    options = DenoiseOptions(self_ensemble=True)
    denoiser = types.SimpleNamespace(recipe=recipe, network=network, options=options, r3=False)
    assert [axis[1:] for axis in spatial_axes(denoiser, scale)] == [(1, 1, 0), *[(16, 1, 0)] * 2]


def test_the_least_size_grows_with_the_grid():
    axes = _axes("distill", network_config={"filters": 1, "depth": 7})
    assert axes[0].step == 128
    assert axes[0].least == 2 * axes[0].halo + 128
    assert axes[0].halo % 128 == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-20.0, 90.0), (1000.0, 4000.0)])
def test_the_tolerance_is_that_between_engines(random, low, high):
    scale = Scale(low, high, 0.0, 1.0)
    values = random.uniform(low, high, (1, 9, 8, 1)).astype(np.float32)
    found = tolerance_of(values, scale)
    rounding = 2 * np.finfo(np.float32).eps * np.abs(values).max()
    assert found["absolute_tolerance"] == pytest.approx(1e-4 * (high - low) + rounding)
    assert (found["relative_tolerance"], found["mismatched_elements_per_million"]) == (0, 0)


def test_values_below_0_have_a_relative_tolerance(random):
    """The description accepts no absolute one above 1 % of the highest value."""
    values = random.uniform(-900, -100, (1, 9, 8, 1)).astype(np.float32)
    found = tolerance_of(values, Scale(-900.0, -100.0, -500.0, 100.0))
    assert found["absolute_tolerance"] == 0
    allowed = found["relative_tolerance"] * np.abs(values)
    assert 0 < found["relative_tolerance"] <= 0.01
    assert np.mean(allowed < 0.08) <= 0.005
    # A few that are 0 may differ; of many, the relative one is as large as it may be.
    values = random.uniform(-900, -100, (1, 100, 100, 1)).astype(np.float32)
    values[0, 0, :5] = 0
    few = tolerance_of(values, Scale(-900.0, -100.0, -500.0, 100.0))
    assert 0.0005 < few["relative_tolerance"] < 0.001
    assert np.mean(few["relative_tolerance"] * np.abs(values) < 0.08) <= 0.005
    values[0, 0] = 0
    many = tolerance_of(values, Scale(-900.0, -100.0, -500.0, 100.0))
    assert (many["absolute_tolerance"], many["relative_tolerance"]) == (0, 0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_simulated_test_is_noise_that_the_model_knows(channels):
    recipe = customised("distill", filters=1, depth=1, channels=channels)
    denoiser = Denoiser(recipe, recipe.build_network())
    photograph = make_sample(denoiser, (96, 80), None)
    assert (photograph.shape, photograph.dtype) == ((96, 80, channels), np.float32)
    assert photograph.min() >= 0 and 0.5 < photograph.max() <= 1
    assert np.diff(photograph, axis=0).std() > 0.02
    scale = Scale(1000.0, 4000.5, 1800.0, 700.0)
    for sizes in ((96, 80), (5, 96, 80)):
        image = make_sample(denoiser, sizes, scale)
        assert (image.shape, image.dtype) == ((*sizes, channels), np.float32)
        assert abs(image.mean() - 1800) < 1 and abs(image.std() - 700) < 1
    large = make_sample(denoiser, (700, 700), None)  # larger than the photograph
    assert large.shape == (700, 700, channels)


def _denoiser(channels=1):
    recipe = customised("distill", filters=1, depth=1, channels=channels)
    return Denoiser(recipe, recipe.build_network())


WHOLE = [Axis("y", 64, 1, 0), Axis("x", 64, 1, 0)]
KNOWN = Scale(0.0, 60000.0, 30000.0, 17000.0)


def test_a_picture_of_the_user_s_is_cut(random, tmp_path):
    pixels = random.integers(0, 256, (90, 100, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    sizes = (80, 64)
    found = read_sample(tmp_path / "photo.png", _denoiser(3), WHOLE, sizes, None, None)
    np.testing.assert_allclose(found, pixels[5:85, 18:82] / 255, atol=1e-7)
    gray = read_sample(tmp_path / "photo.png", _denoiser(1), WHOLE, sizes, None, None)
    assert gray.shape == (80, 64, 1) and gray.dtype == np.float32
    np.testing.assert_allclose(gray[..., 0], found @ (0.299, 0.587, 0.114), atol=1e-6)
    # Of a smaller one, as much as is valid.
    tiles = [Axis("y", 64, 8, 10), Axis("x", 64, 8, 10)]
    found = read_sample(tmp_path / "photo.png", _denoiser(3), tiles, (128, 128), None, None)
    np.testing.assert_allclose(found, pixels[1:89, 2:98] / 255, atol=1e-7)


def test_a_stack_of_the_user_s_gives_its_middle_plane(random, tmp_path):
    stack = random.integers(0, 60000, (5, 2, 70, 80), np.uint16)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})
    sizes = (64, 64)
    found = read_sample(path, _denoiser(), WHOLE, sizes, KNOWN, 1)
    np.testing.assert_array_equal(found[..., 0], stack[2, 1, 3:67, 8:72])
    with pytest.raises(ImageError, match=r"has 2 channels.*Received: --sample"):
        read_sample(path, _denoiser(), WHOLE, sizes, KNOWN, 2)
    stack = stack.astype(np.float32)
    stack[2, 0, 35, 40] = np.nan
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match=r"not finite.*Received: --sample"):
        read_sample(path, _denoiser(), WHOLE, sizes, KNOWN, None)


def test_a_stack_of_the_user_s_gives_its_middle_volume(random, tmp_path):
    stack = random.integers(0, 60000, (3, 9, 70, 80), np.uint16)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TZYX"})
    axes = [Axis("z", 4, 2, 1), *WHOLE]
    found = read_sample(path, _denoiser(), axes, (4, 64, 64), KNOWN, None)
    np.testing.assert_array_equal(found[..., 0], stack[1, 2:6, 3:67, 8:72])
    # As many planes as are valid; if there are too few, they are continued.
    found = read_sample(path, _denoiser(), axes, (16, 64, 64), KNOWN, None)
    np.testing.assert_array_equal(found[..., 0], stack[1, :8, 3:67, 8:72])
    thick = [Axis("z", 12, 2, 1), *WHOLE]
    found = read_sample(path, _denoiser(), thick, (16, 64, 64), KNOWN, None)
    planes = [*range(9), 7, 6, 5]
    np.testing.assert_array_equal(found[..., 0], stack[1, planes, 3:67, 8:72])
    # The sizes that are told are the file's.
    large = [Axis("z", 4, 2, 1), Axis("y", 64, 1, 0), Axis("x", 81, 1, 0)]
    with pytest.raises(ImageError, match=r"at least 1 x 64 x 81 pixels.*Received: 9 x 70 x 80"):
        read_sample(path, _denoiser(), large, (4, 64, 96), KNOWN, None)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match=r"it has no axis Z.*Received: --sample"):
        read_sample(path, _denoiser(), axes, (4, 64, 64), KNOWN, None)


def test_a_volume_smaller_than_the_usual_test_is_a_sample(make_stack_denoiser, random, tmp_path):
    config = {"filters": 2, "depth": 1, "z_halvings": 1, "channels": 1}
    denoiser = make_stack_denoiser("n2v-unet-3d", config)
    scale = denoiser.scaling.of(0)
    axes = spatial_axes(denoiser, scale)
    stack = random.normal(scale.mean, scale.deviation, (3, 48, 61)).astype(np.float32)
    assert axes[0].least > 3 and axes[1].least < 48
    tifffile.imwrite(tmp_path / "plain.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "named.tif", stack, metadata={"axes": "ZYX"}, ome=True)
    with pytest.raises(ImageError, match=r"no axis Z.*Received: --sample"):
        make_test(denoiser, tmp_path / "plain.tif")
    named = make_test(denoiser, tmp_path / "named.tif")
    assert named.shape == (1, axes[0].least, 48, 60, 1)
    # Of pages that the file does not name, the flag does.
    given = make_test(denoiser, tmp_path / "plain.tif", axes="ZYX")
    np.testing.assert_array_equal(given, named)


def test_a_sample_that_cannot_be_used_is_refused(random, tmp_path):
    Image.fromarray(random.integers(0, 256, (40, 90), np.uint8)).save(tmp_path / "small.png")
    scale = Scale(0.0, 255.0, 100.0, 40.0)
    values = np.zeros((2, 3, 4, 70, 70), np.uint16)
    tifffile.imwrite(tmp_path / "unnamed.tif", values, photometric="minisblack")
    for name, known, letters, message in (
        ("small.png", None, None, r"at least 64 x 64 pixels.*Received: 40 x 90 pixels, --sample"),
        ("none.png", None, None, r"none\.png: no such file\. Received: --sample"),
        ("none.tif", scale, None, r"none\.tif: no such file\. Received: --sample"),
        ("small.png", scale, None, r"is a picture, and the model was trained on stacks\. Received"),
        ("unnamed.tif", scale, None, r"name them, such as --axes ZYX\. Received: --sample"),
        ("unnamed.tif", scale, "ZYX", r"--axes takes a letter for each\..*Received: --sample"),
    ):
        with pytest.raises(ImageError, match=message):
            read_sample(tmp_path / name, _denoiser(), WHOLE, (64, 64), known, None, letters)
    with pytest.raises(ConfigError, match=r"omit --axes\. Received: --axes ZYX"):
        read_sample(tmp_path / "small.png", _denoiser(), WHOLE, (64, 64), None, None, "ZYX")


def test_a_sample_that_would_test_nothing_is_refused(random, tmp_path):
    Image.new("L", (90, 90)).save(tmp_path / "black.png")
    scale = Scale(100.0, 600.0, 150.0, 40.0)
    usual = random.normal(150, 40, (3, 70, 70)).astype(np.float32)
    for name, factor in (("usual", 1), ("zero", 0), ("huge", 1e9), ("tens", 50)):
        tifffile.imwrite(tmp_path / f"{name}.tif", usual * factor, photometric="minisblack")
    flat, far = r"nearly the same.*another --sample.*--sample", r"is far from.*another --sample"
    for name, known, message in (
        ("black.png", None, flat),
        ("zero.tif", scale, flat),
        ("huge.tif", scale, far),
        ("tens.tif", scale, far),
    ):
        with pytest.raises(ImageError, match=message):
            read_sample(tmp_path / name, _denoiser(), WHOLE, (64, 64), known, None)
    assert read_sample(tmp_path / "usual.tif", _denoiser(), WHOLE, (64, 64), scale, None).any()


@pytest.mark.parametrize(
    ("noisy", "denoised", "sample", "error", "message"),
    [
        (0.5, 1e-5, None, ModelError, r"train it longer, or give an image of yours by --sample"),
        (0.5, 1e-5, "a.png", ModelError, r"train it longer, or use another --sample.*a\.png"),
        (1e-5, 0.5, "a.tif", ImageError, r"use another --sample.*Received: at most 1e-05.*a\.tif"),
    ],
)
def test_values_too_small_for_a_test(
    make_denoiser, monkeypatch, tmp_path, noisy, denoised, sample, error, message
):
    monkeypatch.setattr(bioimage, "_denoised", lambda *each: np.full((1, 64, 64, 3), denoised))
    images = np.full((1, 64, 64, 3), noisy, np.float32)
    options = {"name": "x", "authors": AUTHORS, "sample": sample}
    with pytest.raises(error, match=message):
        write_bioimage(tmp_path / "a.zip", make_denoiser("distill", UNET), images, **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cover_shows_both_alike(random, tmp_path, channels):
    noisy = random.normal(500, 100, (50, 50, channels)).astype(np.float32)
    write_cover(tmp_path / "cover.png", noisy, np.full_like(noisy, np.median(noisy)))
    with Image.open(tmp_path / "cover.png") as cover:
        pixels = np.asarray(cover)
    assert pixels.shape[:2] == (300, 600)
    left, right = pixels[:, :300], pixels[:, 300:]
    assert left.std() > 30 and right.std() == 0
    assert abs(float(left.mean()) - float(right.mean())) < 5


CBSN, AP_BSN, SS_BSN, AT_BSN = "2304.09507", "2203.11799", "2305.09890", "2303.16783"
NOISE2VOID, N2V2, PN2V, NOISE2NOISE = "1811.10980", "2211.08512", "1906.00651", "1803.04189"
UNET_PAPER, ATTENTION_UNET = "1505.04597", "1804.03999"
TM_BSN = "2604.04484"
STRUCT_N2V = "10.1109/ISBI45749.2020.9098336"
PAPERS = {
    "cbsn": [CBSN],
    "apbsn": [AP_BSN],
    "ssbsn": [AP_BSN, SS_BSN],
    "tmbsn": [NOISE2VOID, TM_BSN],
    "cbsn-hole": [CBSN, TM_BSN],
    "n2v-unet": [NOISE2VOID, UNET_PAPER],
    "n2v2-unet": [NOISE2VOID, N2V2, UNET_PAPER],
    "n2v-unet-3d": [NOISE2VOID, UNET_PAPER],
    "dil-unet": [CBSN, UNET_PAPER],
    "pn2v-unet": [PN2V, UNET_PAPER],
    "n2n-resunet": [NOISE2NOISE, ATTENTION_UNET],
    "distill": [AT_BSN, ATTENTION_UNET],
    "photo": [AT_BSN, ATTENTION_UNET],
    "photo-large": [AT_BSN, ATTENTION_UNET],
}


def _papers(recipe):
    return [paper.doi.removeprefix("10.48550/arXiv.") for paper in papers_of(recipe)]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_papers(name):
    """Those that the modules of its network and of its objective state."""
    recipe = RECIPES[name]
    assert _papers(recipe) == PAPERS[name]
    assert all(len(paper.text) > 20 for paper in papers_of(recipe))
    classes = NETWORKS[recipe.network], OBJECTIVES[recipe.objective], Masking
    stated = " ".join(inspect.getsource(inspect.getmodule(each)) for each in classes)
    if name != "pn2v-unet":  # its network's module refers to that of the U-Net
        assert all(paper in stated for paper in PAPERS[name])


def test_settings_have_papers_of_their_own():
    assert _papers(customised("n2v-unet", mask_shape="x:2")) == [NOISE2VOID, STRUCT_N2V, UNET_PAPER]
    expected = [NOISE2VOID, N2V2, UNET_PAPER]
    assert _papers(customised("n2v-unet", pooling="blur")) == expected
    assert _papers(customised("n2v-unet", replacement="median")) == expected


def _described(denoiser, scale=None):
    """The content of `rdf.yaml`, without files."""
    names = ("TEST_INPUT", "TEST_OUTPUT", "SAMPLE_INPUT", "SAMPLE_OUTPUT", "MODEL")
    return bioimage.describe(
        denoiser,
        spatial_axes(denoiser, scale),
        scale,
        name="x",
        authors=AUTHORS,
        license="MIT",
        tolerance={},
        checksums=dict.fromkeys((getattr(bioimage, each) for each in names), ""),
        opset=15,
        facts={},
        training={},
    )


def test_how_patches_are_described():
    scale = Scale(0.0, 1.0, 0.5, 0.2)
    for recipe, size, end in (
        (customised("n2v-unet", **UNET), "64 x 64", "mirrored"),
        (customised("n2v-unet", **UNET, mask_shape="x:2"), "64 x 64", "the mask stays the same"),
        (customised("n2v-unet-3d", filters=1), "16 x 64 x 64", "mirrored"),
    ):
        denoiser = Denoiser(recipe, recipe.build_network())
        described = _described(denoiser, scale)
        done = described["config"]["bioimageio"]["training"]["training_preprocessing"]
        assert f"patches of {size} pixels, turned and mirrored" in done and done.endswith(end)
        axes = spatial_axes(denoiser, scale)
        assert f"patches of {size} pixels |" in readme(described, denoiser, axes, scale, {})


def test_the_readme_says_what_tiles_do(make_denoiser):
    denoiser = make_denoiser("cbsn", SMALL)
    described = {"name": "a", "description": "b", "cite": []}
    whole = readme(described, denoiser, spatial_axes(denoiser, None), None, {"step": 1234})
    assert "Give the whole image at once" in whole and "1234 steps" in whole
    assert "its own mean and standard deviation" in whole
