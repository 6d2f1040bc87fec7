import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from cbsn.errors import DataError, ImageError
from cbsn.evaluation.stack_noise import stack_noise
from cbsn.inference.stack_options import StackOptions


@pytest.fixture
def series(walls, random):
    """Two channels over ten frames: values of 12 bits and σ 80, and of 8 bits and σ 12."""
    wall = np.stack([walls[0][..., 0] / 255 * peak for peak in (4000, 255)])
    noise = random.normal(size=(10, 2, 256, 256))
    noise[1::2, 1] = noise[::2, 1]  # as if every frame came twice
    sigma = np.array([80, 12])[:, None, None]
    return np.rint(np.maximum(wall + sigma * noise, 0) + 100).astype("uint16")


@pytest.fixture
def path(series, tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", series, imagej=True, metadata={"axes": "TCYX"})
    return tmp_path / "cells.tif"


def test_each_channel_by_itself(path, series):
    first, second = stack_noise([path], StackOptions())
    assert (first.name, second.name) == ("cells.tif, channel 0", "cells.tif, channel 1")
    for each, sigma, channel in ((first, 80, 0), (second, 12, 1)):
        assert each.planes == 10
        found = each.in_file_units()
        assert found["level"] == [pytest.approx(sigma, rel=0.04)]
        for value, there in found["points"][0]:
            assert series[:, channel].min() < value < series[:, channel].max()
            assert there == pytest.approx(sigma, rel=0.2)
            line = np.sqrt(found["slope"][0] * value + found["floor"][0])
            assert line == pytest.approx(there, rel=0.2)
        span = each.scale.high - each.scale.low
        assert each.estimate.level[0] == pytest.approx(found["level"][0] / span * 255, rel=1e-3)
        assert each.advice.recipe == "n2v-unet"
    assert first.series["T"].correlation[0] == pytest.approx(0, abs=0.05)
    assert second.series["T"].correlation[0] == pytest.approx(0.5, abs=0.15)
    assert [*first.series] == ["T"]
    lines = second.lines()
    assert lines[0].startswith("cells.tif, channel 1: values from ")
    assert lines[2].startswith("Noise of 10 planes, seen in flat blocks: ")
    text = "\n".join(lines)
    assert "\n- σ 1" in text and " in a typical plane (" in text
    assert "n2n with neighbouring frames would learn it. Take frames 2 apart." in text
    assert "\nTrain with cbsn train --recipe n2v-unet\n" in text
    values = second.to_dict()
    assert values["series"]["T"]["independent_from"] == 2
    assert values["in_file_units"]["level"] == second.in_file_units()["level"]


def test_selections_and_slices(path, series):
    (only,) = stack_noise([path], StackOptions(axes="ZCYX", select="c=0,z=2:6"), images=3)
    assert (only.name, only.planes) == ("cells.tif, channel 0", 3)
    assert [*only.series] == ["Z"] and only.series["Z"].far is None
    assert "neighbouring slices is independent" in "\n".join(only.lines())
    (one,) = stack_noise([path], StackOptions(select="c=0,t=4"))
    assert (one.planes, one.series) == (1, {})
    # The values that count as 0 and 1 are those of the whole channel.
    assert one.scale == only.scale


def test_too_few_flat_parts(tmp_path, random):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, random.integers(0, 99, (4, 24, 24)).astype("int32"), photometric="minisblack"
    )
    (found,) = stack_noise([path], StackOptions())
    assert found.estimate is None and found.advice is None and found.in_file_units() is None
    assert "No picture has 32 × 32 pixels" in "\n".join(found.lines())
    assert "T" in found.series
    assert found.to_dict()["noise"] is None


def test_what_a_denoiser_removes(path, series, tmp_path):
    clean = np.broadcast_to(series.mean(axis=0, keepdims=True), series.shape)
    (tmp_path / "out").mkdir()
    clean = np.rint(clean).astype("uint16")
    tifffile.imwrite(tmp_path / "out/cells.tif", clean, imagej=True, metadata={"axes": "TCYX"})
    (found,) = stack_noise([path], StackOptions(select="c=0"), denoised=str(tmp_path / "out"))
    # The mean of ten frames holds a tenth of the noise.
    assert found.in_file_units()["level"] == [pytest.approx(80 * np.sqrt(0.9), rel=0.05)]
    assert found.diagnosis.removal.told
    assert "The denoised planes:" in found.lines()
    with pytest.raises(DataError, match="has none for cells"):
        (tmp_path / "out/cells.tif").rename(tmp_path / "out/other.tif")
        [*stack_noise([path], StackOptions(), denoised=str(tmp_path / "out"))]


def test_single_files_are_a_pair_whatever_their_names(path, series, tmp_path):
    tifffile.imwrite(tmp_path / "other.tif", series // 2, imagej=True, metadata={"axes": "TCYX"})
    (found,) = stack_noise([path], StackOptions(select="c=0"), denoised=str(tmp_path / "other.tif"))
    assert found.estimate.source == "what the denoiser removed"
    assert "Noise that the denoiser left is not in these figures" in "\n".join(found.lines())


def test_noise_at_one_brightness(tmp_path, random):
    planes = random.normal(1000, 10, (4, 96, 96))
    planes[:, :32, :32] = random.uniform(500, 4000, (32, 32))  # is not flat
    planes = np.rint(planes).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "TYX"})
    (found,) = stack_noise([tmp_path / "a.tif"], StackOptions())
    assert found.in_file_units()["slope"] == found.in_file_units()["floor"] == [None]
    [line] = [each for each in found.lines() if each.startswith("- σ ")]
    assert "variance" not in line


def test_what_a_model_removes(path, model, tmp_path):
    (found,) = stack_noise(
        [path], StackOptions(select="c=0"), images=2, model_path=str(tmp_path / model)
    )
    assert found.estimate.source == "what the denoiser removed"
    assert found.diagnosis is not None


def test_missing_values(tmp_path, random):
    floats = random.normal(size=(3, 64, 64)).astype("float32")
    floats[1, 2, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", floats, photometric="minisblack")
    with pytest.raises(ImageError, match=r"a\.tif: holds values that are not finite"):
        [*stack_noise([tmp_path / "a.tif"], StackOptions())]
    (found,) = stack_noise([tmp_path / "a.tif"], StackOptions(nan="fill"))
    assert found.in_file_units()["level"] == [pytest.approx(1, rel=0.1)]


def _write(path, frames):
    tifffile.imwrite(path, np.rint(frames).astype("uint16"), photometric="minisblack")
    return path


def test_defects_bands_and_line_noise(tmp_path, random):
    """Each is told with what to do, and the noise is measured without the offsets of lines."""
    rows = np.arange(256)[:, None]
    clean = 1000 + 2 * rows + np.zeros((8, 256, 256))
    frames = clean + random.normal(0, 20, clean.shape) + random.normal(0, 8, (1, 1, 256))
    frames[:, 30, 40] = 4000
    (found,) = stack_noise([_write(tmp_path / "a.tif", frames)], StackOptions())
    assert found.in_file_units()["level"] == [pytest.approx(20, rel=0.05)]
    assert found.advice.recipe == "n2v-unet" and found.advice.repair == ("pixels", "columns")
    text = "\n".join(found.lines())
    assert "cbsn train --recipe n2v-unet --repair pixels,columns\n" in text
    assert "- Column noise, the same in all planes: the camera's: each column has an offset" in text
    assert "- 1 hot pixel in all of 8 planes: cbsn denoise --repair pixels" in text
    values = found.to_dict()
    assert [each["lines"] for each in values["lines"]] == ["columns"]
    assert (values["bands"], values["defects"]["places"]) == ([], [[30, 40, 0]])

    bands = clean + random.normal(0, 20, clean.shape) + 10 * np.sin(rows / 2)
    (found,) = stack_noise([_write(tmp_path / "b.tif", bands)], StackOptions())
    assert "\n- Horizontal bands every 12.5" in "\n".join(found.lines())
    assert found.to_dict()["bands"][0]["period"] == pytest.approx(4 * np.pi, abs=0.1)
    assert found.defects is not None and len(found.defects) == 0


def test_line_noise_where_nothing_is_flat(tmp_path, random):
    """Blotches of many pixels, and offsets of rows."""
    texture = 400 * gaussian_filter(random.normal(size=(256, 256)), 3)
    noise = random.normal(0, 20, (4, 256, 256)) + random.normal(0, 15, (4, 256, 1))
    path = _write(tmp_path / "a.tif", 1000 + texture + noise)
    (found,) = stack_noise([path], StackOptions())
    assert found.estimate is None and found.advice is None
    text = "\n".join(found.lines())
    assert "too few flat blocks" in text
    assert "- Line noise, new in each plane: each row" in text
    assert "- A mask cannot hide whole rows: " in text and "--repair rows of cbsn train" in text
