import csv
import json
import types

import numpy as np
import pytest
import tifffile

from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.evaluation.conventions import Conventions
from cbsn.evaluation.evaluate import evaluate, parse_settings
from cbsn.evaluation.microscopy import si_psnr
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.scaling import measure_scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import denoise_stack
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RECIPES


@pytest.fixture
def clean():
    """Two channels of different brightness over three frames: shaded squares that move."""
    rows, columns = np.mgrid[0:32, 0:40]
    frames = [
        [f * (1000 + 20 * columns + 900 * ((rows - 4 * t) % 16 > 8)) for f in (1, 0.1)]
        for t in range(3)
    ]
    return np.array(frames, "float32")


@pytest.fixture
def noisy(clean, random):
    sigma = np.array([200, 20])[:, None, None]
    return np.rint(np.maximum(clean + sigma * random.normal(size=clean.shape), 0)).astype("uint16")


@pytest.fixture
def folders(clean, noisy, tmp_path):
    """`noisy` in ImageJ's format, uint16; `clean` as OME-TIFF, float32."""
    for kind, name, array in (("noisy", "cells.tif", noisy), ("clean", "cells.ome.tif", clean)):
        (tmp_path / kind).mkdir()
        options = {"ome": True} if "ome" in name else {"imagej": True}
        tifffile.imwrite(tmp_path / kind / name, array, metadata={"axes": "TCYX"}, **options)
    return tmp_path


@pytest.fixture
def fake_models(monkeypatch):
    """Models that return the planes as they are; returns the list of what they were given."""
    given = []

    class FakeDenoiser:
        choices = "Precision any."
        scaling = None
        of_volumes = r3 = False
        options = DenoiseOptions()
        recipe = RECIPES["cbsn"]
        network = types.SimpleNamespace(count_params=lambda: 1234, halo=0)

        def scaled(self, planes, scale, *, dtype, faults):
            given.append((planes.shape, scale, dtype))
            return planes.astype(dtype)

    monkeypatch.setattr(Denoiser, "load", lambda path, options: FakeDenoiser())
    return given


def test_every_plane_is_a_pair(folders, clean, noisy, capsys):
    (scores,) = evaluate(folders / "clean", noisy=folders / "noisy")
    names = ["t0 c0", "t1 c0", "t2 c0", "t0 c1", "t1 c1", "t2 c1"]
    assert scores.names == [f"cells {name}" for name in names]
    # The range of a channel holds for all its planes.
    by_channel = noisy.swapaxes(0, 1), clean.swapaxes(0, 1)
    expected = [
        20 * np.log10(np.ptp(good) / np.sqrt(np.mean((bad[t] - good[t]) ** 2.0)))
        for bad, good in zip(*by_channel, strict=True)
        for t in range(3)
    ]
    assert scores.psnr == pytest.approx(expected)
    fitted = [si_psnr(clean[t, c], noisy[t, c]) for c in range(2) for t in range(3)]
    assert scores.si_psnr == pytest.approx(fitted)
    assert scores.micro_ssim == []
    assert all(0.2 < each < 0.9 for each in scores.ssim)
    printed = capsys.readouterr().out
    assert "6 planes: noisy " in printed and "data range stack, rgb" in printed
    assert f"of the clean stack: cells {np.ptp(clean[:, 0]):g} and " in printed


def test_the_unit_of_the_values_does_not_matter(folders, clean, noisy):
    both = [*evaluate(folders / "clean", noisy=folders / "noisy", baselines="noisy,nlm")]
    for kind, name, array in (("noisy", "cells.tif", noisy), ("clean", "cells.ome.tif", clean)):
        options = {"ome": True} if "ome" in name else {"imagej": True}
        changed = array.astype("float32") * 5 - 3e4
        tifffile.imwrite(folders / kind / name, changed, metadata={"axes": "TCYX"}, **options)
    again = evaluate(folders / "clean", noisy=folders / "noisy", baselines="noisy,nlm")
    for one, other in zip(both, again, strict=True):
        for metric in ("psnr", "ssim", "si_psnr"):
            found = getattr(other, metric)
            assert found == pytest.approx(getattr(one, metric), abs=0.02)
    assert both[1].mean("psnr") > both[0].mean("psnr") + 3
    assert both[1].diagnosis.removed == pytest.approx(again[1].diagnosis.removed, rel=0.01)


@pytest.mark.parametrize("repair", [None, "pixels,rows"])
def test_models_see_planes_as_in_cbsn_denoise(folders, model, noisy, clean, repair, monkeypatch):
    """Repaired ones, too: a pixel is hot in all planes."""
    monkeypatch.chdir(folders)
    noisy[..., 7, 9] = 60000
    tifffile.imwrite("noisy/cells.tif", noisy, imagej=True, metadata={"axes": "TCYX"})
    options = DenoiseOptions(repair=repair)
    _, scores = evaluate(
        "clean", [model], noisy="noisy", baselines="noisy", metrics="psnr", options=options
    )
    with open_stacks("noisy/cells.tif") as stacks:
        denoised = denoise_stack(stacks[0], [Denoiser.load(model, options)], StackOptions())
    assert (denoised[..., 7, 9] < 30000).all() == bool(repair)
    error = (denoised - clean.astype(float)).swapaxes(0, 1)
    spans = np.ptp(clean, axis=(0, 2, 3))
    expected = [
        20 * np.log10(span / np.sqrt(np.mean(plane**2)))
        for channel, span in zip(error, spans, strict=True)
        for plane in channel
    ]
    assert scores.psnr == pytest.approx(expected, abs=0.01)
    # The same that `cbsn denoise` would have written.
    (folders / "out").mkdir()
    tifffile.imwrite("out/cells.tif", denoised, imagej=True, metadata={"axes": "TCYX"})
    (scores,) = evaluate("clean", noisy="noisy", denoised=["out"], metrics="psnr", baselines="")
    assert scores.psnr == pytest.approx(expected)
    # Single files are a pair whatever their names.
    (folders / "out/cells.tif").rename("result.tif")
    (folders / "noisy/cells.tif").rename("shot.tif")
    (scores,) = evaluate(
        "clean/cells.ome.tif",
        noisy="shot.tif",
        denoised=["result.tif"],
        metrics="psnr",
        baselines="",
    )
    assert scores.psnr == pytest.approx(expected)


def test_the_scale_is_that_of_the_whole_stack(folders, fake_models):
    options = {"noisy": folders / "noisy", "baselines": ""}
    select = StackOptions(select="t=1,c=1", normalize="percentile")
    (scores,) = evaluate(folders / "clean", ["a"], stacks=select, **options)
    assert scores.names == ["cells t1 c1"]
    with open_stacks(folders / "noisy/cells.tif") as stacks:
        scale = measure_scaling(stacks[0], "percentile").of(1)
    assert fake_models == [((1, 32, 40), scale, np.uint16)] * 2
    evaluate(None, ["a"], conventions=Conventions("none"), images=1, **options)
    assert fake_models[-1][2] == np.float32
    with pytest.raises(ConfigError, match="omit --normalize model"):
        evaluate(None, ["a"], stacks=StackOptions(normalize="model"), **options)


def test_results_and_report(folders, fake_models, monkeypatch):
    contents = []
    monkeypatch.setattr("cbsn.evaluation.evaluate.write_contact_sheet", lambda *_: None)
    monkeypatch.setattr("cbsn.evaluation.evaluate.write_report", lambda _, c: contents.append(c))
    options = {"noisy": folders / "noisy", "out": folders / "out", "report_images": 2}
    evaluate(folders / "clean", ["a"], stacks=StackOptions(select="c=0"), **options)
    record = json.loads((folders / "out/results.json").read_text())
    assert record["metrics"] == ["psnr", "ssim", "si_psnr"]
    assert record["conventions"]["data_range"] == "stack"
    stacks = record["stacks"]
    assert (stacks["select"], stacks["normalize"]) == ("c=0", "auto")
    assert len(stacks["data_ranges"]["cells"]) == 2
    rows = [*csv.DictReader((folders / "out/results.csv").open(encoding="utf-8"))]
    assert [row["image"] for row in rows] == [f"cells t{t} c0" for t in (0, 1, 2)] * 2
    (content,) = contents
    assert [picture.name for picture in content.pictures] == ["cells t0 c0", "cells t1 c0"]
    assert content.pictures[0].captions["noisy"].startswith("PSNR ")
    for side in content.pictures[0].sides.values():
        assert side.dtype == np.float32
        assert 0.2 < np.mean(side) < 0.8  # which 1000 and more of 65535 would not be
    # Where clean stacks are in another unit, noisy ones are shown by their own percentiles.
    path = folders / "clean/cells.ome.tif"
    tifffile.imwrite(path, tifffile.imread(path) / 1e4, ome=True, metadata={"axes": "TCYX"})
    evaluate(folders / "clean", ["a"], **options)
    for side in contents[-1].pictures[0].sides.values():
        assert 0.2 < np.mean(side) < 0.8


def test_the_report_is_written(folders):
    flags = {"noisy": folders / "noisy", "out": folders / "out", "baselines": "nlm"}
    evaluate(None, images=1, **flags)
    assert "cells t0 c0" in (folders / "out/report.html").read_text("utf-8")
    assert (folders / "out/contact_sheet.png").is_file()


def test_data_ranges(folders, clean, noisy):
    def psnr(data_range, **options):
        conventions = Conventions(data_range=data_range)
        return evaluate(
            folders / "clean", noisy=folders / "noisy", conventions=conventions, **options
        )[0].psnr

    stack, plane, given = psnr("dtype"), psnr("clean"), psnr("1000")
    for number, (t, c) in enumerate((t, c) for c in range(2) for t in range(3)):
        spans = np.ptp(clean[:, c]), np.ptp(clean[t, c])
        assert stack[number] - given[number] == pytest.approx(20 * np.log10(spans[0] / 1000))
        assert plane[number] - given[number] == pytest.approx(20 * np.log10(spans[1] / 1000))
    clean[:, 1] = 7
    path = folders / "clean/cells.ome.tif"
    tifffile.imwrite(path, clean, ome=True, metadata={"axes": "TCYX"})
    assert [each is None for each in psnr("dtype")] == [False] * 3 + [True] * 3


def test_missing_values(folders, noisy, fake_models):
    floats = noisy.astype("float32")
    floats[1, 1, 3, 4] = np.inf
    path = folders / "noisy/cells.tif"
    tifffile.imwrite(path, floats, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match=r"cells\.tif: holds values that are not finite.*--nan f"):
        evaluate(folders / "clean", noisy=path)
    scores = evaluate(folders / "clean", ["a"], noisy=path, stacks=StackOptions(nan="fill"))
    assert np.isfinite(scores[1].psnr).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": Noise("gaussian", sigma=(25, 25))}, "noise, σ 25"),
        ({"noisy": True, "white": 255.0}, "omit --white"),
        ({"noisy": True, "lpips": True}, "--lpips is for pictures"),
        ({"noisy": True, "conventions": Conventions("floor")}, "--rounding floor is for pictures"),
        ({"noisy": True, "conventions": Conventions(color="luma")}, "--color luma is for pictures"),
        ({"noisy": True, "stacks": StackOptions(select="z=1")}, "no axis Z to select"),
        ({"noisy": True, "denoised": ["other"]}, "other has no denoised stack for 1 of 1 names"),
        (
            {"noisy": True, "conventions": Conventions(border=16)},
            "--border 16 leaves nothing.*use a smaller one",
        ),
    ],
)
def test_mistakes(folders, options, message, noisy, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / "other").mkdir()
    tifffile.imwrite("other/other.tif", noisy, imagej=True)
    if "noisy" in options:
        options = options | {"noisy": "noisy"}
    with pytest.raises((ConfigError, DataError), match=message):
        evaluate("clean", **options)


def test_the_scaling_of_models_needs_one(folders):
    with pytest.raises(
        ConfigError, match=r"--normalize is for models.*Received: --normalize percentile$"
    ):
        evaluate(
            folders / "clean", noisy=folders / "noisy", stacks=StackOptions(normalize="percentile")
        )


def test_flags_of_stacks_are_for_stacks(folders):
    (folders / "pictures").mkdir()
    tifffile.imwrite(folders / "pictures/a.tif", np.zeros((20, 20), "uint8"))
    for flags in ({"select": "t=1"}, {"nan": "fill"}, {"data_range": "stack"}):
        pair = {"noisy": folders / "pictures", "clean": folders / "pictures"}
        settings = parse_settings({**pair, "baselines": "noisy", **flags})
        (name,) = flags
        with pytest.raises(
            ConfigError, match=f"--{name}.* is for stacks, and none of the pictures"
        ):
            evaluate(**settings)
    settings = parse_settings({"axes": "ZYX", "normalize": "100,4095"})
    assert settings["stacks"] == StackOptions(axes="ZYX", normalize="100,4095")
