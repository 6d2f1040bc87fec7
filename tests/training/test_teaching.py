import numpy as np
import pytest

from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import DataError, ModelError, TrainingError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.low_frequencies import with_low_frequencies
from cbsn.model_folder import save_model
from cbsn.recipes import customised
from cbsn.training.teaching import measure_own, teach

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
        Denoiser.load(teacher, self_ensemble=True, precision="float32") for teacher in teachers
    ]
    assert pairs.counts == [2, 3]
    for index in range(5):
        noisy, target = np.split(pairs[index], 2, axis=-1)
        np.testing.assert_array_equal(noisy, records[index])
        mean = np.mean([denoise(noisy / np.float32(255)) for denoise in denoisers], axis=0)
        expected = with_low_frequencies(noisy / np.float32(255), mean) * 255
        np.testing.assert_allclose(target, expected, atol=0.501)
        assert target.std() > 0


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
    noise = measure_own(PatchRecords([tmp_path / "a.tfrecords"], 96, np.uint8), channels, (2, 2))
    gray = np.full((96, 96, channels), 0.5, np.float32)
    weights = np.array([0.299, 0.587, 0.114])
    expected = 20 * (np.sqrt(np.sum(weights**2)) if channels == 1 else 1)
    assert noise(gray, random).std() * 255 == pytest.approx(expected, rel=0.1)


def test_noise_that_cannot_be_seen_is_refused(tmp_path):
    _write(tmp_path / "a.tfrecords", np.full((2, 64, 64, 3), 99, np.uint8))
    records = PatchRecords([tmp_path / "a.tfrecords"], 64, np.uint8)
    with pytest.raises(DataError, match=r"too few flat blocks.*--recipe distill --noise camera"):
        measure_own(records, 3, (1, 1))
