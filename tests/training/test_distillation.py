import numpy as np
import pytest
import scipy

from cbsn.colors import to_linear, to_srgb
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import DataError, ModelError, TrainingError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.recipes import customised
from cbsn.training import distillation as module
from cbsn.training.distillation import measure_own, teach, with_low_frequencies
from cbsn.training.teachers import load_teachers

SIZE = 24


def _write(path, patches):
    with RecordWriter(path) as writer:
        for patch in patches:
            writer.write(patch)


@pytest.fixture
def records(tmp_path, random):
    """Five patches in two files."""
    patches = random.integers(0, 256, (5, SIZE, SIZE, 3)).astype("uint8")
    paths = [tmp_path / "a.tfrecords", tmp_path / "b.tfrecords"]
    _write(paths[0], patches[:2])
    _write(paths[1], patches[2:])
    return PatchRecords(paths, SIZE, np.uint8)


@pytest.fixture
def second_model(tmp_path):
    recipe = customised("cbsn", filters=4, num_modules=0)
    save_model(tmp_path / "second", recipe, recipe.build_network(), {})
    return tmp_path / "second"


def _teach(records, tmp_path, *teachers, **options):
    return teach(records, teachers, tmp_path / "targets", precision="float32", **options)


def test_patches_are_paired_with_the_mean_of_what_the_teachers_make_of_them(
    records, tmp_path, model, second_model
):
    teachers = (tmp_path / model, second_model)
    pairs = _teach(records, tmp_path, *teachers)
    denoisers = [
        Denoiser.load(teacher, DenoiseOptions(self_ensemble=True, precision="float32"))
        for teacher in teachers
    ]
    assert pairs.counts == [2, 3]
    for index in range(5):
        noisy, target = np.split(pairs[index], 2, axis=-1)
        np.testing.assert_array_equal(noisy, records[index])
        unit = noisy / np.float32(255)
        mean = np.mean([denoise(unit) for denoise in denoisers], axis=0)
        expected = with_low_frequencies(unit[None], mean[None])[0] * 255
        np.testing.assert_allclose(target, expected, atol=0.501)
        assert target.std() > 0


@pytest.fixture
def many_holes(tmp_path):
    recipe = customised("tmbsn", filters=4, depth=1)
    save_model(tmp_path / "holes", recipe, recipe.build_network(), {})
    return tmp_path / "holes"


@pytest.mark.slow
def test_each_hole_is_a_teacher(records, tmp_path, many_holes):
    """Each patch comes once with the picture of each, or once with their mean."""
    holes = (1, 5, 9)
    pairs = _teach(records, tmp_path, many_holes, holes=holes, targets="one")
    assert pairs.counts == [2, 3] * 3 and len(pairs) == 15
    (teacher,) = load_teachers([many_holes], holes, "float32")
    patches = np.stack([records[index] for index in range(5)])
    unit = patches / np.float32(255)
    pictures = teacher(unit)
    for number, picture in enumerate(pictures):
        expected = with_low_frequencies(unit, picture) * 255
        for index in range(5):
            noisy, target = np.split(pairs[5 * number + index], 2, axis=-1)
            np.testing.assert_array_equal(noisy, records[index])
            np.testing.assert_allclose(target, expected[index], atol=0.502)
            assert pairs.describe(5 * number + index).startswith(records.describe(index))
    mean = _teach(records, tmp_path, many_holes, holes=holes)
    assert mean.counts == [2, 3]
    expected = with_low_frequencies(unit, np.mean(pictures, axis=0)) * 255
    for index in range(5):
        np.testing.assert_allclose(mean[index][..., 3:], expected[index], atol=0.502)


def test_several_teachers_may_take_turns(records, tmp_path, model, second_model):
    pairs = _teach(records, tmp_path, tmp_path / model, second_model, targets="one")
    assert len(pairs) == 10
    alone = teach(records, [second_model], tmp_path / "alone", precision="float32")
    for index in range(5):
        np.testing.assert_array_equal(pairs[5 + index], alone[index])
    assert (pairs[0] != pairs[5]).any()


def test_one_target_alone_is_as_the_mean(records, tmp_path, model):
    pairs = _teach(records, tmp_path, tmp_path / model, targets="one")
    assert pairs.counts == [2, 3]
    assert [path.name for path in sorted((tmp_path / "targets").glob("*.tfrecords"))] == [
        "00000.tfrecords",
        "00001.tfrecords",
    ]


@pytest.mark.slow
def test_with_other_holes_targets_are_made_anew(records, tmp_path, many_holes):
    first = _teach(records, tmp_path, many_holes, holes=(1, 9), targets="one")[5]
    _teach(records, tmp_path, many_holes, holes=(1, 9), targets="one")
    second = _teach(records, tmp_path, many_holes, holes=(1, 5), targets="one")[5]
    assert (first != second).any()
    assert len([*(tmp_path / "targets").glob("*.tfrecords")]) == 4
    _teach(records, tmp_path, many_holes, holes=(1, 5))
    assert len([*(tmp_path / "targets").glob("*.tfrecords")]) == 2


@pytest.mark.slow
def test_a_bad_record_has_a_black_target_of_each_hole(records, tmp_path, many_holes):
    content = bytearray((tmp_path / "b.tfrecords").read_bytes())
    content[500] ^= 1
    (tmp_path / "b.tfrecords").write_bytes(content)
    damaged = {"holes": (1, 9), "targets": "one", "skip_bad_records": True}
    pairs = _teach(records, tmp_path, many_holes, **damaged)
    made = [PatchRecords([path], SIZE, np.uint8) for path in _files(tmp_path, "00001-*")]
    black = [[not each[index].any() for index in range(3)] for each in made]
    assert black == [[True, False, False]] * 2
    assert (pairs[4][..., 3:] == made[0][2]).all() and (pairs[9][..., 3:] == made[1][2]).all()


def _files(folder, pattern):
    return sorted((folder / "targets").glob(f"{pattern}.tfrecords"))


def test_targets_that_are_there_are_kept(records, tmp_path, model, second_model):
    teacher = tmp_path / model
    _teach(records, tmp_path, teacher)
    first, second = sorted((tmp_path / "targets").glob("*.tfrecords"))
    marked = np.full((2, SIZE, SIZE, 3), 7, np.uint8)
    _write(first, marked)
    second.unlink()  # as if the process had been killed there
    pairs = _teach(records, tmp_path, teacher)
    assert (pairs[0][..., 3:] == 7).all()
    assert (pairs[2][..., 3:] != 7).any()
    again = _teach(records, tmp_path, teacher, write=False)
    np.testing.assert_array_equal(again[4], pairs[4])
    other = _teach(records, tmp_path, second_model)
    assert (other[0][..., 3:] != 7).any()


def test_other_data_get_other_targets(records, tmp_path, model):
    _teach(records, tmp_path, tmp_path / model)
    _write(tmp_path / "a.tfrecords", np.full((2, SIZE, SIZE, 3), 90, np.uint8))
    pairs = _teach(records, tmp_path, tmp_path / model)
    assert np.ptp(pairs[0]) < 30


def test_float_patches_have_float_targets(tmp_path, random, model):
    _write(tmp_path / "f.tfrecords", random.random((1, SIZE, SIZE, 3)).astype("float32"))
    records = PatchRecords([tmp_path / "f.tfrecords"], SIZE, np.float32)
    pair = _teach(records, tmp_path, tmp_path / model)[0]
    assert pair.dtype == np.float32
    assert 0 <= pair.min() < pair.max() <= 1


def test_what_cannot_be_taught_is_said(records, tmp_path, model):
    with pytest.raises(ModelError, match="nobody"):
        _teach(records, tmp_path, tmp_path / "nobody")
    content = bytearray((tmp_path / "b.tfrecords").read_bytes())
    content[500] ^= 1
    (tmp_path / "b.tfrecords").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tfrecords"):
        _teach(records, tmp_path, tmp_path / model)
    assert [path.name for path in (tmp_path / "targets").glob("*.tfrecords")] == ["00000.tfrecords"]
    pairs = _teach(records, tmp_path, tmp_path / model, skip_bad_records=True)
    assert len(pairs) == 5
    assert (pairs[4][..., 3:] > 0).any()
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file"):
        teach(records, [tmp_path / model], tmp_path / "file" / "targets", precision="float32")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_noise_of_a_data_set_is_measured(tmp_path, random, channels):
    """For a network for gray pictures, that of their luma."""
    patches = np.clip(random.normal(120, 10, (2, 96, 96, 3)), 0, 255).astype("uint8")
    _write(tmp_path / "a.tfrecords", patches)
    (model,) = measure_own(PatchRecords([tmp_path / "a.tfrecords"], 96, np.uint8), channels)
    weights = np.array([0.299, 0.587, 0.114])
    expected = 10 * (np.sqrt(np.sum(weights**2)) if channels == 1 else 1)
    sigmas = [curve[:, 1].mean() for curve in model.levels]
    assert sigmas == pytest.approx([expected] * channels, rel=0.1)


def test_noise_that_cannot_be_seen_is_refused(tmp_path):
    _write(tmp_path / "a.tfrecords", np.full((2, 64, 64, 3), 99, np.uint8))
    records = PatchRecords([tmp_path / "a.tfrecords"], 64, np.uint8)
    with pytest.raises(DataError, match=r"too few flat blocks.*--recipe distill --noise camera"):
        measure_own(records, 3)


def test_patches_are_denoised_together(records, tmp_path, model, monkeypatch):
    """As many at a time as memory is meant for; otherwise the targets are the same but for ties.

    Rounding errors of the network's float32, of some 1e-6 of 255 levels, decide whether a value is
    rounded up that is so close to the middle of two integers: one of 1,000 at most.
    """
    counts = []
    batch = Denoiser.batch

    def count(self, images, **options):
        counts.append(len(images))
        return batch(self, images, **options)

    monkeypatch.setattr(Denoiser, "batch", count)
    size = SIZE**2 * 3 * 4
    found = []
    for most, expected in ((10 * size, [2, 3]), (2 * size, [2, 2, 1])):
        monkeypatch.setattr(module, "_BYTES_AT_ONCE", most)
        targets = teach(records, [tmp_path / model], tmp_path / str(most), precision="float32")
        assert counts == expected
        counts.clear()
        found.append(np.stack([targets[index] for index in range(5)]).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1
    assert (found[0] != found[1]).mean() <= 1e-3
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 2**24)
    assert [module.patches_at_once(size) for size in (64, 256, 4096)] == [64, 21, 1]


@pytest.mark.parametrize("bad", ["damaged", "not finite"])
def test_one_bad_record_does_not_cost_its_neighbours_their_targets(tmp_path, random, model, bad):
    patches = random.random((4, SIZE, SIZE, 3)).astype("float32")
    if bad == "not finite":
        patches[2, 3, 4] = np.nan
    path = tmp_path / "f.tfrecords"
    _write(path, patches)
    if bad == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) * 5 // 8] ^= 1
        path.write_bytes(content)
    records = PatchRecords([path], SIZE, np.float32)
    with pytest.raises(DataError, match=r"[Rr]ecord 2 of .*f\.tfrecords"):
        _teach(records, tmp_path, tmp_path / model)
    assert not [*(tmp_path / "targets").glob("*.tfrecords")]
    pairs = _teach(records, tmp_path, tmp_path / model, skip_bad_records=True)
    targets = PatchRecords([tmp_path / "targets/00000.tfrecords"], SIZE, np.float32)
    assert [targets[index].any() for index in range(4)] == [True, True, False, True]
    assert (pairs[3][..., 3:] == targets[3]).all()


@pytest.fixture
def slope():
    return np.linspace(0.3, 0.7, 64, dtype="float32")[:, None, None] * np.ones((1, 1, 64, 3), "f")


@pytest.fixture
def noisy(slope, random):
    return (slope + random.normal(0, 0.04, slope.shape)).astype("float32")


def test_wrong_colours_are_mended(slope, noisy):
    tinted = slope + np.float32([0.03, 0, -0.05])
    mended = with_low_frequencies(noisy, tinted)
    assert mended.dtype == np.float32
    assert np.abs(mended - slope).mean() < 0.25 * np.abs(tinted - slope).mean()
    # And next to nothing of the noise came back.
    assert (mended - slope).std() < 0.15 * (noisy - slope).std()


def test_detail_is_the_denoised_pictures_own(noisy):
    denoised = scipy.ndimage.gaussian_filter(noisy, (0, 1, 1, 0))
    details = 0.02 * np.cos(np.pi * np.arange(64))[None, :, None]
    mended = with_low_frequencies(noisy, denoised + details)
    np.testing.assert_allclose(mended, with_low_frequencies(noisy, denoised) + details, atol=0.004)


def test_the_dark_does_not_become_darker(random):
    """Where the sRGB curve bends, noise in the sensor's light lowers the mean."""
    light = np.full((1, 128, 128, 3), 0.03)
    noisy = to_srgb(np.clip(light + random.normal(0, 0.015, light.shape), 0, 1)).astype("float32")
    dark, true = np.full_like(noisy, noisy.mean()), to_srgb(light)
    assert (true - dark).mean() > 0.005
    mended = with_low_frequencies(noisy, dark)
    assert abs((true - mended).mean()) < 0.2 * (true - dark).mean()


def test_results_are_pictures(random):
    noisy, denoised = random.random((2, 1, 8, 8, 3)).astype("float32")
    mended = with_low_frequencies(noisy, np.round(denoised))
    assert 0 <= mended.min() < mended.max() <= 1
    np.testing.assert_allclose(with_low_frequencies(noisy, noisy), noisy, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 56), (5, 9), (1, 33)])
def test_the_blur_is_scipys(random, shape):
    """Of each picture of a batch its own, also of those that are narrower than its kernel.

    Values to the rounding errors of sums over 65 pixels, and of powers, which the sRGB curve makes
    up to 13 times as large in the dark.
    """
    clean = random.random((6, *shape, 3))
    sigma = np.array([1, 5, 8, 13, 19, 40])[:, None, None, None]  # levels, for 2 to 8 pixels
    denoised = np.clip(clean, 0.05, 0.95).astype(np.float32)
    noisy = denoised + (random.normal(0, 1, denoised.shape) * sigma / 255).astype(np.float32)
    noisy = np.clip(noisy, 0, 1)
    found = with_low_frequencies(noisy, denoised)
    assert found.dtype == np.float32
    for ours, before, after in zip(found, noisy, denoised, strict=True):
        width = np.clip((before - after).std() * 255 / module._LEVELS_PER_PIXEL, 2, 8)
        light = to_linear(after)
        removed = to_linear(before) - light
        coarse = scipy.ndimage.gaussian_filter(removed, (width, width, 0), mode="reflect")
        np.testing.assert_allclose(ours, to_srgb(np.clip(light + coarse, 0, 1)), atol=2e-6)
