import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RECIPES
from cbsn.training.dataset import choose_strides, without_auto
from cbsn.training.options import RunOptions
from cbsn.training.run import train

AUTO = {"stride_b": "auto"}


def _smooth_patches():
    """Sixteen patches of slow gradients."""
    y, x = np.mgrid[0:256, 0:256] / 256
    for i in range(16):
        ramp = 100 + 40 * (x * np.cos(i) + y * np.sin(i))
        yield np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)


def _write(path, patches):
    with RecordWriter(path) as writer:
        for patch in patches:
            writer.write(np.clip(np.rint(patch), 0, 255).astype("uint8"))
    return PatchRecords.open(path)


@pytest.fixture
def blurred(tmp_path, random):
    """Noise that is the mean of 4 × 4 independent pixels: gone at a distance of 4."""
    patches = [
        patch + 40 * uniform_filter(random.normal(size=patch.shape), (4, 4, 1))
        for patch in _smooth_patches()
    ]
    return _write(tmp_path / "blurred.tfrecords", patches)


@pytest.fixture
def clean(tmp_path):
    return _write(tmp_path / "clean.tfrecords", _smooth_patches())


def _chosen(records, recipe="cbsn", changes=AUTO, noise=None, gray=False):
    return choose_strides(recipe, changes, records, noise=noise, gray=gray)


def test_correlated_noise(blurred):
    changes, lines = _chosen(blurred)
    assert changes == {"stride_b": 4, "stride_i": 2}
    assert lines and all(isinstance(line, str) for line in lines)
    assert _chosen(blurred) == (changes, lines)


def test_white_noise_is_added_as_in_training(clean):
    changes, _ = _chosen(clean, noise=Noise("gaussian", sigma=(25, 25)))
    assert changes == {"stride_b": 1, "stride_i": 1}


def test_what_is_given_stays(blurred):
    changes, _ = _chosen(blurred, changes={**AUTO, "stride_i": 1, "filters": 4})
    assert changes == {"stride_b": 4, "stride_i": 1, "filters": 4}


def test_recipes_without_stride_i(blurred):
    assert _chosen(blurred, "apbsn")[0] == {"stride_b": 4}


def test_the_next_stride_that_divides_the_patch(blurred):
    changes, lines = _chosen(blurred, changes={**AUTO, "patch_size": 90})
    assert changes["stride_b"] == 5
    assert lines[-1] == "4 does not divide the patches evenly, so it is 5."
    with pytest.raises(ConfigError, match="multiple of"):
        _chosen(blurred, changes={**AUTO, "patch_size": 22})


def test_gray_patches_count_once(tmp_path, random):
    patches = [
        np.repeat(patch[..., :1] + random.normal(0, 20, (256, 256, 1)), 3, axis=-1)
        for patch in _smooth_patches()
    ]
    changes, _ = _chosen(_write(tmp_path / "gray.tfrecords", patches), gray=True)
    assert changes == {"stride_b": 1, "stride_i": 1}


def test_patches_that_show_no_noise(tmp_path):
    texture = np.random.default_rng(0).integers(0, 2, (256, 256, 3)) * 255
    records = _write(tmp_path / "saturated.tfrecords", [texture])
    with pytest.raises(DataError, match=r"Or say the stride, such as --stride_b 5\.$"):
        _chosen(records)


def test_other_recipes_have_none():
    for name, recipe in RECIPES.items():
        if "stride_b" in recipe.objective_config:
            assert without_auto(name, AUTO) == {"stride_b": None}
        else:
            with pytest.raises(ConfigError, match=f"{name}.*omit --stride_b"):
                without_auto(name, AUTO)
    assert without_auto("cbsn", {"stride_b": 3}) == {"stride_b": 3}


def test_a_run_says_its_strides_and_saves_them(tmp_path, random, capsys):
    patches = np.stack([*_smooth_patches()])
    noise = 60 * uniform_filter(random.normal(size=patches.shape), (1, 3, 3, 1))
    _write(tmp_path / "patches.tfrecords", patches + noise)
    tiny = {"filters": 4, "num_modules": 1, "patch_size": 30, "batch_size": 2, "max_steps": 2}
    options = RunOptions(
        name="run", dataset=str(tmp_path / "patches.tfrecords"), checkpoints=tmp_path
    )
    folder = train("cbsn", {**tiny, **AUTO}, options)
    assert '"stride_b": 3' in (folder / "last/recipe.json").read_text()
    assert "--stride_b 3" in capsys.readouterr().out
