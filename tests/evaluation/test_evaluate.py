import csv
import json
import types

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from cbsn.errors import ConfigError, DataError, ImageError, ModelError
from cbsn.evaluation import lpips
from cbsn.evaluation.conventions import Conventions
from cbsn.evaluation.evaluate import evaluate, parse_settings
from cbsn.evaluation.lpips import SHAPES
from cbsn.evaluation.microscopy import micro_ssim, si_psnr
from cbsn.evaluation.scores import Scores, format_table
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RECIPES

GAUSSIAN = Noise("gaussian", sigma=(25, 25))


def _write(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and nothing to fill it from."""
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lpips, "URL", "file:///nowhere")
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path):
    random = np.random.default_rng(1)
    arrays = {k: np.abs(random.normal(size=s)).astype("float32") for k, s in SHAPES.items()}
    np.savez(tmp_path / "weights.npz", **arrays)
    return tmp_path / "weights.npz"


@pytest.fixture
def fake_models(monkeypatch):
    """Models that return the picture as it is; returns the list of what they were given."""
    given = []

    class FakeDenoiser:
        choices = "Precision any."
        of_volumes = False

        def __init__(self, path):
            self.recipe = RECIPES["cbsn"]
            self.network = types.SimpleNamespace(count_params=lambda: 1234)
            self._path = path

        def __call__(self, noisy, *, white):
            given.append((self._path, noisy.shape, noisy.dtype, white))
            return noisy.copy()

    def load(path, options):
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
    assert fake_models == [("a", shape, np.float32, 1.0) for shape in shapes]


def test_models_get_floats_where_results_are_not_rounded(clean, noisy, fake_models):
    for rounding in ("floor", "none"):
        fake_models.clear()
        evaluate(clean, ["a"], noisy=noisy, conventions=Conventions(rounding))
        assert [each[2:] for each in fake_models] == [(np.float32, 1.0)] * 3


def test_real_pairs_stay_in_their_dtype(clean, noisy, fake_models, tmp_path):
    scores = evaluate(clean, ["a"], noisy=noisy, out=tmp_path / "out")
    assert [each[2:] for each in fake_models] == [(np.uint8, 255.0)] * 3
    for each in scores:
        assert each.psnr == [pytest.approx(20 * np.log10(255 / 16))] * 2
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert (content["noisy"], content["noise"], content["seed"]) == (str(noisy), None, None)


@pytest.mark.parametrize("name", ["results.csv", "contact_sheet.png", "results.json"])
def test_files_that_are_of_no_evaluation_are_not_overwritten(clean, noisy, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("[1, 2]")
    with pytest.raises(ConfigError, match=rf"has a file {name} that is not of an earlier"):
        evaluate(clean, noisy=noisy, out=out)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "[1, 2]")]
    (out / name).unlink()
    for _ in range(2):  # its own are
        evaluate(clean, noisy=noisy, out=out)


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
    (scores,) = evaluate(clean, noisy=clean, out=tmp_path)
    assert scores.mean("psnr") == np.inf and scores.mean("ssim") == 1
    (method,) = json.loads((tmp_path / "results.json").read_text())["methods"]
    assert method["psnr"] is None and method["ssim"] == 1


def test_lpips_is_of_colour_if_the_weights_are_there(clean, weights, cache):
    def taken(**options):
        return [value is not None for value in evaluate(clean, noise=GAUSSIAN, **options)[0].lpips]

    assert taken() == [False, False]
    assert taken(lpips_weights=weights) == [True, False]
    assert taken(lpips_weights=weights, lpips=True) == [True, True]
    assert taken(lpips_weights=weights, lpips=False) == [False, False]
    with pytest.raises(ModelError, match="--lpips_weights FILE"):
        taken(lpips=True)
    cache.mkdir()
    weights.rename(cache / "lpips_alex.npz")
    assert taken() == [True, False]
    assert taken(lpips=False) == [False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noisy": "x", "noise": GAUSSIAN}, "Received: --noisy x, gaussian noise, σ 25"),
        ({"noise": GAUSSIAN, "baselines": "noisy,median"}, "noisy, bm3d, nlm,.*Received: median"),
        ({"noise": GAUSSIAN, "baselines": ""}, "nothing to score"),
        (
            {"noise": GAUSSIAN, "metrics": "psnr,mse"},
            "si_psnr, micro_ssim, .*commas. Received: mse",
        ),
        ({"noise": GAUSSIAN, "metrics": "lpips"}, "commas, or --lpips. Received: lpips"),
        ({"noise": GAUSSIAN, "images": -1}, "--images -1"),
        ({"noise": GAUSSIAN, "seed": -1}, "--seed -1"),
        ({"noise": GAUSSIAN, "report_images": -1}, "--report_images -1"),
        ({"noise": GAUSSIAN, "out": "file"}, "cannot be created"),
        ({"baselines": "noisy"}, "need noisy pictures"),
        ({}, "nothing to score"),
        ({"noise": Noise.parse(None, "5-50", None), "baselines": "bm3d"}, "σ 5-50"),
    ],
)
def test_refuses_options(clean, fake_bm3d, options, message, tmp_path):
    if "out" in options:
        (tmp_path / "file").write_text("")
        options = {**options, "out": tmp_path / "file"}
    with pytest.raises(ConfigError, match=message):
        evaluate(clean, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"images": "2"}, "--images"), ({"images": 1.5}, "--images"), ({"seed": "x"}, "--seed")),
        *(({"report_images": None}, "--report_images"), ({"metrics": 3}, "metrics")),
        *(({"baselines": 3}, "baselines"), ({"baseline_sigma": [1]}, "--baseline_sigma")),
        *(({"border": "2"}, "--border"), ({"border": 1.5}, "--border"), ({"ssim": [1]}, "ssim")),
        *(({"rounding": [1]}, "rounding"), ({"data_range": [1]}, "--data_range")),
        *(({"out": 3}, "out"), ({"clean": 3}, "clean"), ({"lpips_weights": 3}, "lpips_weights")),
        *(({"denoised": 3}, "--denoised"), ({"model_paths": None}, "--model")),
    ],
    ids=str,
)
def test_values_of_another_type_are_named(clean, options, message):
    with pytest.raises(ConfigError, match=rf"^{message} .*Received: "):
        evaluate(**parse_settings({"clean": clean, "noise_sigma": 25, **options}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline_sigma": "25"}, "--baseline_sigma is for bm3d and nlm: .*--baselines"),
        ({"baseline_sigma": "25", "baselines": "noisy"}, "--baseline_sigma is for bm3d and nlm"),
        ({"strength": 0.5}, "--strength is for models.* give --model.*Received: --strength 0.5$"),
        ({"r3": True, "self_ensemble": True}, "Received: --r3 --self_ensemble$"),
        ({"r3": False, "seed": 7}, "Received: --no-r3$"),
        ({"precision": "float32"}, "--precision is for models"),
        ({"seed": 7}, "--seed is for synthetic noise: give --noise"),
        ({"clean": None, "metrics": "psnr"}, "--metrics is for the comparison with clean.*--clean"),
        ({"clean": None, "lpips": True}, "Received: --lpips$"),
        ({"clean": None, "lpips_weights": "w.npz"}, "Received: --lpips_weights$"),
        ({"clean": None, "border": 2, "color": "luma"}, "Received: --color luma --border 2$"),
        ({"report_images": 3}, "--report_images is for the report in a folder: give --out"),
    ],
    ids=str,
)
def test_flags_without_an_effect_are_refused(clean, noisy, options, message):
    given = {"clean": clean, "noisy": noisy, "baselines": "noisy", **options}
    with pytest.raises(ConfigError, match=message):
        evaluate(**parse_settings(given))


def test_flags_with_an_effect_are_taken(clean, noisy, fake_models, tmp_path):
    for options in (
        {"baseline_sigma": 25, "baselines": "nlm"},
        {"model_paths": ["a"], "strength": 0.5, "seed": 7},  # of R3
        {"clean": None, "model_paths": ["a"], "rounding": "none", "lpips": False},
        {"report_images": 0},
        {"report_images": 1, "out": tmp_path / "out"},
    ):
        evaluate(**parse_settings({"clean": clean, "noisy": noisy, **options}))


def test_the_seed_is_that_of_the_noise_and_of_r3(clean, monkeypatch):
    settings = parse_settings({"clean": clean, "noise_sigma": 25, "seed": 7})
    assert (settings["seed"], settings["options"]) == (7, DenoiseOptions(seed=7))
    psnr = evaluate(**settings)[0].psnr
    assert psnr == evaluate(clean, noise=GAUSSIAN, seed=7)[0].psnr
    assert psnr != evaluate(clean, noise=GAUSSIAN)[0].psnr


def test_one_path_may_be_given_by_itself(clean, noisy, fake_models):
    scores = evaluate(clean, "a", noisy=noisy, denoised=noisy, baselines="")
    assert [each.method for each in scores] == [f"denoised ({noisy})", "cbsn (a)"]


def test_needs_pictures(noisy):
    with pytest.raises(ConfigError, match="Give noisy pictures with --noisy"):
        evaluate()
    with pytest.raises(ConfigError, match="best needs the clean"):
        evaluate(noisy=noisy, baselines="nlm", baseline_sigma="best")


def test_a_wrong_path_is_told_before_any_work(clean, fake_models):
    with pytest.raises(ModelError, match="nowhere"):
        evaluate(clean, ["a", "nowhere"], noise=GAUSSIAN)
    assert fake_models == []


def test_pictures_too_small_are_named(tmp_path, weights, fake_bm3d):
    path = _write(tmp_path / "small" / "dot.png", np.full((30, 6, 3), 99, "uint8"))
    with pytest.raises(
        DataError, match=r"^dot: SSIM needs .* 7 px.*\(30, 6, 3\)\. Remove this picture\.$"
    ):
        evaluate(path, noise=GAUSSIAN)
    with pytest.raises(ConfigError, match=r"^dot: --border 3 leaves nothing .*use a smaller one\."):
        evaluate(path, noise=GAUSSIAN, conventions=Conventions(border=3))
    with pytest.raises(ImageError, match=r"^dot, by bm3d: bm3d needs .* 9 px"):
        evaluate(path, noise=GAUSSIAN, baselines="bm3d")
    _write(path, np.full((30, 40, 3), 99, "uint8"))
    with pytest.raises(DataError, match=r"^dot: LPIPS needs .* 31 px.*--no-lpips"):
        evaluate(path, noise=GAUSSIAN, lpips_weights=weights)


def test_denoised_folders_need_no_noisy_pictures(clean, noisy, tmp_path, capsys):
    (scores,) = evaluate(clean, denoised=[noisy, noisy], out=tmp_path / "out")
    assert scores.method == f"denoised ({noisy})"
    assert scores.psnr == [pytest.approx(20 * np.log10(255 / 16))] * 2
    assert (scores.seconds, scores.peak_gib, scores.diagnosis) == ([], None, None)
    assert "noisy none" in capsys.readouterr().out
    assert "–" in (tmp_path / "out/results.md").read_text()


@pytest.mark.parametrize("rounding", ["round", "none"])
def test_denoised_folders_of_another_depth(clean, noisy, tmp_path, rounding):
    """Floats are compared with 8 bits, and integers are left as they are."""
    for path in clean.iterdir():
        (tmp_path / "float").mkdir(exist_ok=True)
        unit = np.asarray(Image.open(path)).astype("float32") / 255
        kind = "rgb" if unit.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "float" / f"{path.stem}.tif", unit, photometric=kind)
    conventions = Conventions(rounding)
    folders = [clean, tmp_path / "float"]
    options = {"noisy": noisy, "conventions": conventions, "baselines": "", "out": tmp_path / "out"}
    same, floats = evaluate(clean, denoised=folders, **options)
    assert min(same.psnr) == np.inf and min(floats.psnr) > 100
    assert same.diagnosis.removed == pytest.approx(16, abs=0.5)
    assert floats.diagnosis.removed == pytest.approx(same.diagnosis.removed, abs=1e-3)
    tifffile.imwrite(tmp_path / "float" / "gray.tif", np.full((40, 40), np.nan, "float32"))
    with pytest.raises((DataError, ImageError), match="gray"):
        evaluate(None, denoised=folders[1:], noisy=noisy)


def test_denoised_folders_are_checked(clean, noisy):
    _write(noisy / "gray.png", np.zeros((40, 41), "uint8"))
    with pytest.raises(DataError, match=r"gray\.png is not the denoised picture.*41.*40"):
        evaluate(clean, denoised=[noisy])
    (noisy / "gray.png").unlink()
    with pytest.raises(DataError, match="for 1 of 2 names, such as gray"):
        evaluate(clean, denoised=[noisy])


def test_without_clean_pictures_there_is_time_and_diagnosis(noisy, fake_models, capsys):
    (scores,) = evaluate(None, ["a"], noisy=noisy)
    assert (scores.psnr, scores.ssim, scores.lpips) == ([], [], [])
    assert len(scores.seconds) == 2 and scores.diagnosis is not None
    printed = capsys.readouterr().out
    assert "PSNR" not in printed and "judged without clean pictures" in printed


def test_conventions_are_used_and_told(clean, noisy, capsys):
    (scores,) = evaluate(clean, noisy=noisy, conventions=Conventions(data_range="16"))
    assert scores.psnr == [pytest.approx(0)] * 2
    assert "data range 16" in capsys.readouterr().out


def test_sidd_blocks(tmp_path, random):
    clean = random.integers(0, 256, (2, 2, 16, 16, 3), "uint8")
    for name, blocks in (
        ("ValidationNoisyBlocksSrgb", clean ^ 8),
        ("ValidationGtBlocksSrgb", clean),
    ):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: blocks})
    pair = (tmp_path / "ValidationGtBlocksSrgb.mat", tmp_path / "ValidationNoisyBlocksSrgb.mat")
    (scores,) = evaluate(pair[0], noisy=pair[1])
    assert scores.names == ["0000_00", "0000_01", "0001_00", "0001_01"]
    assert scores.psnr == [pytest.approx(20 * np.log10(255 / 8))] * 4
    pair[0].write_bytes(b"no mat")
    with pytest.raises(DataError, match=r"GtBlocksSrgb\.mat cannot be read"):
        evaluate(pair[0], noisy=pair[1])


def test_results_of_every_picture(clean, noisy, fake_models, tmp_path):
    evaluate(clean, ["a|b"], noisy=noisy, out=tmp_path / "out", baselines="noisy,nlm")
    content = json.loads((tmp_path / "out/results.json").read_text())
    rows = [*csv.DictReader((tmp_path / "out/results.csv").open(encoding="utf-8"))]
    assert [row["method"] for row in rows] == [
        m for m in ("noisy", "nlm", "cbsn (a|b)") for _ in "12"
    ]
    images = [image for method in content["methods"] for image in method["images"]]
    for row, image in zip(rows, images, strict=True):
        assert row["image"] == image["image"] and row["image"] in ("color", "gray")
        for name in ("psnr", "ssim", "si_psnr", "micro_ssim", "lpips", "seconds", "pixels"):
            assert row[name] == ("" if image[name] is None else str(image[name]))
    table = (tmp_path / "out/results.md").read_text().splitlines()
    assert table[0].startswith("| method | PSNR | SSIM |") and len(table) == 5
    assert r"| cbsn (a\|b) |" in table[4]
    assert (tmp_path / "out/report.html").exists() and (tmp_path / "out/contact_sheet.png").exists()
    evaluate(clean, noisy=noisy, out=tmp_path / "plain", report_images=0)
    assert sorted(path.suffix for path in (tmp_path / "plain").iterdir()) == [
        ".csv",
        ".json",
        ".md",
    ]


def test_the_report_takes_pictures_that_are_spread(clean, noisy, monkeypatch, tmp_path):
    contents = []
    monkeypatch.setattr("cbsn.evaluation.evaluate.write_report", lambda _, c: contents.append(c))
    for count, names in ((1, ["color"]), (2, ["color", "gray"]), (9, ["color", "gray"])):
        evaluate(clean, noisy=noisy, baselines="nlm", out=tmp_path / "out", report_images=count)
        (content,) = contents
        assert [picture.name for picture in content.pictures] == names
        assert content.pictures[0].captions["nlm"].startswith("PSNR ")
        contents.clear()


def test_table_says_what_lpips_is_of():
    names, pixels = ["a", "b"], [500_000, 1_500_000]
    first = Scores("noisy", None, names, [20, 21], [0.5, 0.7], [0.25, None], [], pixels)
    second = Scores(
        "cbsn (a)", 12345, names, [30, 31.5], [0.9, 0.9], [0.125, None], [0.5, 1.5], pixels, 0.75
    )
    assert format_table([first.cells(), second.cells()]).splitlines() == [
        "method     PSNR    SSIM  LPIPS (1 of 2)  parameters  s/image  MP/s  peak GiB",
        "noisy     20.50  0.6000          0.2500           –        –     –         –",
        "cbsn (a)  30.75  0.9000          0.1250      12,345    1.000     1      0.75",
    ]
    assert second.caption(0) == "PSNR 30.00, SSIM 0.9000, LPIPS 0.1250"
    assert second.caption(1) == "PSNR 31.50, SSIM 0.9000"


def test_results_that_are_not_finite_are_refused(noisy, monkeypatch):
    def broken(name, noisy, clean):
        return np.full(noisy.shape, np.nan, np.float32)

    monkeypatch.setattr("cbsn.evaluation.methods._classic", lambda *_: broken)
    with pytest.raises(ImageError, match="by nlm: The result holds values that are not finite"):
        evaluate(noisy=noisy, baselines="nlm")


@pytest.mark.parametrize("sigma", ["nan", "0", "-1", "1e30", "much"])
def test_a_sigma_that_nobody_is_told_is_checked_too(clean, sigma):
    with pytest.raises(ConfigError, match=f"Received: --baseline_sigma {sigma}"):
        evaluate(clean, noise=GAUSSIAN, baseline_sigma=sigma)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_figures_are_those_of_the_range_in_the_files(tmp_path, random, dtype):
    """Of 12 bits, or of floats in another unit: no other than of all 16 bits."""
    clean = random.integers(0, 4096, (40, 50, 3))
    clean[0, :2] = [[0] * 3, [4095] * 3]
    noisy = np.clip(clean + random.integers(-300, 301, clean.shape), 0, 4095)
    denoised = np.clip(clean + random.integers(-99, 100, clean.shape), 1, 3000)
    for name, pixels in (("clean", clean), ("noisy", noisy), ("denoised", denoised)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", pixels.astype(dtype), photometric="rgb")
    folders = {"noisy": tmp_path / "noisy", "denoised": [tmp_path / "denoised"]}
    expected = [
        20 * np.log10(4095 / np.sqrt(np.mean((each - clean) ** 2))) for each in (noisy, denoised)
    ]
    for data_range in ("dtype", "4095", "clean"):
        conventions = Conventions.choose(False, data_range=data_range, rounding="none")
        scores = evaluate(tmp_path / "clean", **folders, conventions=conventions)
        assert [each.psnr[0] for each in scores] == pytest.approx(expected, abs=1e-3)
    conventions = Conventions.choose(False, rounding="none")
    (half, _) = evaluate(tmp_path / "clean", **folders, white=8190, conventions=conventions)
    assert half.psnr[0] == pytest.approx(expected[0] + 20 * np.log10(2), abs=1e-3)


ALL = "psnr,ssim,si_psnr,micro_ssim"


@pytest.fixture
def half(clean, tmp_path):
    """The clean pictures with half of the brightness, and coarse."""
    for path in clean.iterdir():
        _write(tmp_path / "half" / path.name, np.asarray(Image.open(path)) // 16 * 8 + 5)
    return tmp_path / "half"


def test_metrics_of_microscopy(clean, noisy, half, tmp_path, capsys):
    options = {"noisy": noisy, "denoised": [half], "out": tmp_path / "out"}
    noisy_scores, scores = evaluate(clean, **options, metrics=ALL)
    for index, name in enumerate(("color", "gray")):
        pair = [np.asarray(Image.open(each / f"{name}.png")) for each in (clean, half)]
        assert scores.si_psnr[index] == pytest.approx(si_psnr(*pair), abs=1e-9)
        assert scores.micro_ssim[index] == pytest.approx(micro_ssim(*pair), abs=1e-9)
    # The brightness counts in the others only.
    assert scores.mean("si_psnr") > noisy_scores.mean("si_psnr") + 5
    assert scores.mean("psnr") < noisy_scores.mean("psnr") - 5
    printed = capsys.readouterr().out
    assert "Brightness fitted to each picture: SI-PSNR, MicroSSIM." in printed
    (head,) = (line for line in printed.splitlines() if line.startswith("method "))
    assert head.split()[:5] == ["method", "PSNR", "SSIM", "SI-PSNR", "MicroSSIM"]
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert content["metrics"] == ALL.split(",")
    method = content["methods"][1]
    assert method["si_psnr"] == pytest.approx(scores.mean("si_psnr"), abs=1e-3)
    assert method["images"][0]["micro_ssim"] == pytest.approx(scores.micro_ssim[0], abs=1e-4)
    rows = [*csv.DictReader((tmp_path / "out/results.csv").open(encoding="utf-8"))]
    assert float(rows[2]["si_psnr"]) == pytest.approx(scores.si_psnr[0], abs=1e-3)
    table = (tmp_path / "out/results.md").read_text()
    assert table.startswith("| method | PSNR | SSIM | SI-PSNR | MicroSSIM |")
    html = (tmp_path / "out/report.html").read_text("utf-8")
    assert "Brightness fitted to each picture" in html and "MicroSSIM</th>" in html
    assert "SI-PSNR" in scores.caption(0)


def test_only_the_metrics_asked_for(clean, noisy, tmp_path, capsys):
    (scores,) = evaluate(clean, noisy=noisy, metrics=" si_psnr, si_psnr", out=tmp_path / "out")
    assert len(scores.si_psnr) == 2
    assert [*scores.psnr, *scores.ssim, *scores.micro_ssim] == []
    assert scores.mean("psnr") is None
    printed = capsys.readouterr().out
    assert "Brightness fitted to each picture: SI-PSNR.\n" in printed
    (head,) = (line for line in printed.splitlines() if line.startswith("method "))
    assert head.split()[:3] == ["method", "SI-PSNR", "parameters"]
    (method,) = json.loads((tmp_path / "out/results.json").read_text())["methods"]
    assert (method["psnr"], method["images"][0]["ssim"]) == (None, None)
    (scores,) = evaluate(clean, noisy=noisy)
    assert [*scores.si_psnr, *scores.micro_ssim] == []
    assert "fitted" not in capsys.readouterr().out


def test_metrics_of_microscopy_follow_the_conventions(clean, half):
    path = clean / "color.png"
    pair = [np.asarray(Image.open(each / "color.png")) for each in (clean, half)]
    options = {"denoised": [half / "color.png"], "metrics": ALL}
    (cut,) = evaluate(path, **options, conventions=Conventions(border=5))
    expected = [each[5:-5, 5:-5] for each in pair]
    assert cut.si_psnr == [pytest.approx(si_psnr(*expected), abs=1e-9)]
    assert cut.micro_ssim == [pytest.approx(micro_ssim(*expected), abs=1e-9)]
    (luma,) = evaluate(path, **options, conventions=Conventions(color="luma"))
    weights = np.array([65.481, 128.553, 24.966]) / 255
    expected = [(each @ weights)[..., None] for each in pair]
    assert luma.si_psnr == [pytest.approx(si_psnr(*expected), abs=1e-6)]
    assert luma.micro_ssim == [pytest.approx(micro_ssim(*expected), abs=1e-6)]


def test_metrics_of_a_flat_clean_picture_are_missing(clean, noisy, tmp_path, capsys):
    _write(clean / "gray.png", np.full((40, 40), 9, "uint8"))
    options = {"noisy": noisy, "baselines": "noisy,nlm", "out": tmp_path / "out"}
    scores = evaluate(clean, **options, metrics="si_psnr,micro_ssim")
    for each in scores:
        assert each.si_psnr[1] is None and each.micro_ssim[1] is None
        assert each.mean("si_psnr") == each.si_psnr[0]
    assert "SI-PSNR (1 of 2)  MicroSSIM (1 of 2)" in capsys.readouterr().out
    method = json.loads((tmp_path / "out/results.json").read_text())["methods"][0]
    assert method["images"][1]["si_psnr"] is None
    assert "SI-PSNR" not in scores[0].caption(1)


def test_pictures_too_small_for_micro_ssim_are_named(tmp_path):
    path = _write(tmp_path / "small" / "dot.png", np.arange(300, dtype="uint8").reshape(30, 10))
    with pytest.raises(DataError, match=r"^dot: MicroSSIM needs .* 11 px.*Remove this picture\.$"):
        evaluate(path, noise=GAUSSIAN, metrics="micro_ssim")
    evaluate(path, noise=GAUSSIAN, metrics="psnr,ssim,si_psnr")


@pytest.mark.parametrize("clip", [True, False])
def test_denoised_pictures_may_be_brighter_than_white(tmp_path, random, clip):
    """Of 16 bits, where the clean ones have 10."""
    clean = random.integers(100, 900, (40, 50)).astype(np.uint16)
    denoised = np.clip(clean * 70.0 + random.normal(scale=900, size=clean.shape), 0, 65535)
    denoised = np.rint(denoised).astype(np.uint16)
    for name, pixels in (("clean", clean), ("denoised", denoised)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", pixels, photometric="minisblack")
    (scores,) = evaluate(
        tmp_path / "clean",
        noisy=tmp_path / "clean",
        denoised=[tmp_path / "denoised"],
        baselines="",
        metrics=ALL,
        conventions=Conventions(clip=clip),
        out=tmp_path / "out",
    )
    unit = np.minimum(denoised, 1023) if clip else denoised
    assert scores.si_psnr == [pytest.approx(si_psnr(clean, unit), abs=1e-3)]
    assert scores.micro_ssim == [pytest.approx(micro_ssim(clean, unit), abs=1e-4)]
    error = np.mean((unit - clean.astype(float)) ** 2)
    assert scores.psnr == [pytest.approx(10 * np.log10(1023**2 / error), abs=1e-3)]
