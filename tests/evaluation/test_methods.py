import sys
import types

import numpy as np
import pytest
from PIL import Image

from cbsn.errors import ConfigError
from cbsn.evaluation.conventions import psnr
from cbsn.evaluation.evaluate import evaluate
from cbsn.evaluation.methods import make_baselines
from cbsn.noise.synthetic import Noise

GAUSSIAN = Noise("gaussian", sigma=(25, 25))


def baseline(name, sigma):
    (method,) = make_baselines(name, None, sigma)
    return lambda noisy, clean=None: method.denoise("", noisy, clean)


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


@pytest.mark.slow
def test_bm3d_denoises(clean):
    pytest.importorskip("bm3d")
    noisy, bm3d = evaluate(clean, noise=GAUSSIAN, baselines="noisy,bm3d")
    assert bm3d.mean("psnr") > noisy.mean("psnr") + 8
    picture = np.asarray(Image.open(clean / "color.png"))
    denoised = baseline("bm3d", None)(picture)
    assert (denoised.shape, denoised.dtype) == (picture.shape, np.uint8)
    assert psnr(picture, denoised) > 35


def test_bm3d_that_is_not_there(clean, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[bm3d\]'"):
        evaluate(clean, noise=GAUSSIAN, baselines="bm3d")


def test_nlm_denoises(clean):
    noisy, nlm = evaluate(clean, noise=GAUSSIAN, baselines="noisy,nlm")
    assert nlm.mean("psnr") > noisy.mean("psnr") + 5
    picture = np.asarray(Image.open(clean / "color.png"))
    for dtype, factor in (("uint8", 1), ("uint16", 257), ("float32", 1 / 255)):
        denoised = baseline("nlm", "5")((picture * np.float64(factor)).astype(dtype))
        assert (denoised.shape, denoised.dtype) == (picture.shape, dtype)
        assert psnr(picture, np.rint(denoised / factor).astype("uint8")) > 35


def test_best_sigma_is_the_best_of_some(clean, fake_bm3d, monkeypatch):
    noise = Noise.parse("poisson-gaussian", "25", "1e6")
    (scores,) = evaluate(clean, noise=noise, baselines="bm3d", baseline_sigma="best")
    told = [sigma * 255 / 25 for kind, _, sigma in fake_bm3d if kind == "gray"]
    assert told == pytest.approx([1, 1.5, 2, 3], rel=0.05)
    assert scores.method == "bm3d (sigma best)"

    def denoise(noisy, sigma):  # right with twice the true σ
        return truth + (sigma * 255 / 25 - 2) / 10

    truth = np.full((40, 40), 0.5)
    fake = types.SimpleNamespace(bm3d=denoise)
    monkeypatch.setitem(sys.modules, "bm3d", fake)
    noisy = truth[..., None] + np.where(np.indices((40, 40, 1)).sum(0) % 2, 25, -25) / 255
    best = baseline("bm3d", "best")(noisy, truth[..., None])
    np.testing.assert_allclose(best[..., 0], truth)


@pytest.mark.parametrize("sigma", ["0", "-1", "256", "nan", "much"])
def test_refuses_a_sigma(sigma):
    with pytest.raises(ConfigError, match=f"Received: --baseline_sigma {sigma}"):
        make_baselines("nlm", None, sigma)


def test_single_files_are_compared_whatever_their_names(tmp_path, random):
    pictures = random.integers(0, 256, (3, 20, 30, 3)).astype("uint8")
    paths = [tmp_path / f"{name}.png" for name in ("truth", "shot", "result")]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    clean, noisy, denoised = map(str, paths)
    scores = evaluate(clean, noisy=noisy, denoised=[denoised], metrics="psnr", baselines="")
    [found] = scores
    assert found.mean("psnr") == pytest.approx(psnr(pictures[0], pictures[2]))
