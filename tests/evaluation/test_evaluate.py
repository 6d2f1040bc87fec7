import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from cbsn.data.noise import Noise
from cbsn.errors import ConfigError, DataError, ImageError, ModelError
from cbsn.evaluation.baselines import BASELINES
from cbsn.evaluation.evaluate import evaluate
from cbsn.evaluation.lpips_weights import SHAPES
from cbsn.evaluation.metrics import psnr
from cbsn.evaluation.scores import Scores, format_table
from cbsn.inference.denoiser import Denoiser

GAUSSIAN = Noise("gaussian", sigma=(25, 25))


def _write(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no pip to fill it."""
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    return tmp_path / "cache"


@pytest.fixture
def clean(tmp_path):
    """A smooth gray picture and a smooth one in colour."""
    ramp = np.linspace(40, 200, 40, dtype="uint8")
    gray = np.add.outer(ramp // 2, ramp // 2)
    _write(tmp_path / "clean" / "gray.png", gray)
    _write(tmp_path / "clean" / "color.png", np.stack([gray, gray.T, 255 - gray], axis=-1))
    return tmp_path / "clean"


@pytest.fixture
def noisy(clean, tmp_path):
    """16 of 255 away from the clean ones."""
    for path in clean.iterdir():
        _write(tmp_path / "noisy" / path.name, np.asarray(Image.open(path)) ^ 16)
    return tmp_path / "noisy"


@pytest.fixture
def weights(tmp_path):
    random = np.random.default_rng(1)
    arrays = {k: np.abs(random.normal(size=s)).astype("float32") for k, s in SHAPES.items()}
    np.savez(tmp_path / "weights.npz", **arrays)
    return tmp_path / "weights.npz"


@pytest.fixture
def fake_bm3d(monkeypatch):
    """A BM3D that returns 1.5 everywhere; returns the list of its calls."""
    calls = []

    def make(kind):
        def denoise(noisy, sigma):
            calls.append((kind, noisy.shape, float(sigma)))
            return np.full(noisy.shape, 1.5)

        return denoise

    module = types.SimpleNamespace(bm3d=make("gray"), bm3d_rgb=make("color"))
    monkeypatch.setitem(sys.modules, "bm3d", module)
    return calls


@pytest.fixture
def fake_models(monkeypatch):
    """Models that return the picture as it is; returns the list of what they were given."""
    given = []

    class FakeDenoiser:
        choices = "Precision any."

        def __init__(self, path):
            self.recipe = types.SimpleNamespace(name="cbsn")
            self.network = types.SimpleNamespace(count_params=lambda: 1234)
            self._path = path

        def __call__(self, noisy, *, any_range):
            given.append((self._path, noisy.shape, noisy.dtype, any_range))
            return noisy

    def load(path, **options):
        if path == "nowhere":
            raise ModelError("No model at nowhere")
        return FakeDenoiser(path)

    monkeypatch.setattr(Denoiser, "load", load)
    return given


def test_baselines_come_first_in_the_order_given(clean, fake_bm3d, fake_models, capsys):
    scores = evaluate(clean, ["z", "y"], noise=GAUSSIAN, baselines="bm3d, noisy,bm3d")
    assert [each.method for each in scores] == ["bm3d", "noisy", "cbsn (z)", "cbsn (y)"]
    assert [each.parameters for each in scores] == [None, None, 1234, 1234]
    printed = capsys.readouterr().out
    assert "gaussian noise, σ 25, seed 0" in printed and " 1,234 " in printed


def test_models_get_the_noisy_floats_and_warm_up_once(clean, fake_models):
    evaluate(clean, ["a"], noise=GAUSSIAN)
    shapes = [(40, 40, 3), (40, 40, 3), (40, 40, 1)]
    assert fake_models == [("a", shape, np.float32, True) for shape in shapes]


def test_real_pairs_stay_in_their_dtype(clean, noisy, fake_models, tmp_path):
    file = tmp_path / "scores.json"
    scores = evaluate(clean, ["a"], noisy=noisy, json_path=file)
    assert [each[2:] for each in fake_models] == [(np.uint8, False)] * 3
    for each in scores:
        assert each.psnr == [pytest.approx(20 * np.log10(255 / 16))] * 2
    content = json.loads(file.read_text())
    assert (content["noisy"], content["noise"], content["seed"]) == (str(noisy), None, None)


def test_noisy_is_scored_unclipped(clean):
    wide = Noise("gaussian", sigma=(100, 100))
    (scores,) = evaluate(clean, noise=wide)
    # Clipped to [0, 1] it would be 1.5 dB better.
    assert scores.mean("psnr") == pytest.approx(20 * np.log10(255 / 100), abs=0.2)
    assert evaluate(clean, noise=wide)[0].psnr == scores.psnr
    assert evaluate(clean, noise=wide, seed=1)[0].psnr != scores.psnr
    (first,) = evaluate(clean, noise=wide, images=1)
    assert first.psnr == scores.psnr[:1]


def test_equal_pictures_are_infinitely_good(clean, tmp_path):
    (scores,) = evaluate(clean, noisy=clean, json_path=tmp_path / "scores.json")
    assert scores.mean("psnr") == np.inf and scores.mean("ssim") == 1
    (method,) = json.loads((tmp_path / "scores.json").read_text())["methods"]
    assert method["psnr"] is None and method["ssim"] == 1


def test_lpips_is_of_colour_if_the_weights_are_there(clean, weights, cache):
    def lpips(**options):
        return [value is not None for value in evaluate(clean, noise=GAUSSIAN, **options)[0].lpips]

    assert lpips() == [False, False]
    assert lpips(lpips_weights=weights) == [True, False]
    assert lpips(lpips_weights=weights, lpips=True) == [True, True]
    assert lpips(lpips_weights=weights, lpips=False) == [False, False]
    with pytest.raises(ModelError, match="--lpips_weights FILE"):
        lpips(lpips=True)
    cache.mkdir()
    weights.rename(cache / "lpips_alex.npz")
    assert lpips() == [True, False]
    assert lpips(lpips=False) == [False, False]


def test_bm3d_is_told_the_sigma(clean, fake_bm3d):
    evaluate(clean, noise=GAUSSIAN, baselines="bm3d")
    assert fake_bm3d[1:] == [("color", (40, 40, 3), 25 / 255), ("gray", (40, 40), 25 / 255)]


def test_bm3d_of_other_noise_gets_an_estimate(clean, noisy, fake_bm3d):
    evaluate(clean, noise=Noise.parse("poisson-gaussian", "25", "1e6"), baselines="bm3d")
    assert all(sigma == pytest.approx(25 / 255, rel=0.15) for _, _, sigma in fake_bm3d)
    (scores,) = evaluate(clean, noisy=noisy, baselines="bm3d")
    # Its 1.5 was clipped to 255, in uint8.
    white = np.full((40, 40, 1), 255, "uint8")
    gray = np.asarray(Image.open(clean / "gray.png"))[..., None]
    assert scores.psnr[1] == pytest.approx(psnr(gray, white))


def test_bm3d_denoises(clean):
    pytest.importorskip("bm3d")
    noisy, bm3d = evaluate(clean, noise=GAUSSIAN, baselines="noisy,bm3d")
    assert bm3d.mean("psnr") > noisy.mean("psnr") + 8
    picture = np.asarray(Image.open(clean / "color.png"))
    denoised = BASELINES["bm3d"](None)(picture)
    assert (denoised.shape, denoised.dtype) == (picture.shape, np.uint8)
    assert psnr(picture, denoised) > 35


def test_bm3d_that_is_not_there(clean, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[bm3d\]'"):
        evaluate(clean, noise=GAUSSIAN, baselines="bm3d")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Received: neither"),
        ({"noisy": "x", "noise": GAUSSIAN}, "Received: --noisy x, gaussian noise, σ 25"),
        ({"noise": GAUSSIAN, "baselines": "noisy,median"}, "noisy and bm3d.*Received: median"),
        ({"noise": GAUSSIAN, "baselines": ""}, "nothing to score"),
        ({"noise": GAUSSIAN, "images": -1}, "--images -1"),
        ({"noise": GAUSSIAN, "seed": -1}, "--seed -1"),
        ({"noise": GAUSSIAN, "json_path": "."}, "this is a folder"),
        ({"noise": Noise.parse(None, "5-50", None), "baselines": "bm3d"}, "σ 5-50"),
    ],
)
def test_refuses_options(clean, fake_bm3d, options, message, tmp_path):
    if "json_path" in options:
        options = {**options, "json_path": tmp_path}
    with pytest.raises(ConfigError, match=message):
        evaluate(clean, **options)


def test_a_wrong_path_is_told_before_any_work(clean, fake_models):
    with pytest.raises(ModelError, match="nowhere"):
        evaluate(clean, ["a", "nowhere"], noise=GAUSSIAN)
    assert fake_models == []


def test_pictures_too_small_are_named(tmp_path, weights, fake_bm3d):
    path = _write(tmp_path / "small" / "dot.png", np.full((30, 6, 3), 99, "uint8"))
    with pytest.raises(
        DataError, match=r"^dot: SSIM needs .* 7 px.*\(30, 6, 3\)\. Take it away\.$"
    ):
        evaluate(path, noise=GAUSSIAN)
    with pytest.raises(ImageError, match=r"^dot, by bm3d: BM3D needs .* 9 px"):
        evaluate(path, noise=GAUSSIAN, baselines="bm3d")
    _write(path, np.full((30, 40, 3), 99, "uint8"))
    with pytest.raises(DataError, match=r"^dot: LPIPS needs .* 31 px.*--no-lpips"):
        evaluate(path, noise=GAUSSIAN, lpips_weights=weights)


def test_table_says_what_lpips_is_of():
    first = Scores("noisy", None, [20, 21], [0.5, 0.7], [0.25, None], [1, 3])
    second = Scores("cbsn (a)", 12345, [30, 31.5], [0.9, 0.9], [0.125, None], [0.5, 0.5])
    assert format_table([first, second]).splitlines() == [
        "method     PSNR    SSIM  LPIPS (1 of 2)  parameters  s/image",
        "noisy     20.50  0.6000          0.2500           –    2.000",
        "cbsn (a)  30.75  0.9000          0.1250      12,345    0.500",
    ]
