import concurrent.futures
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from cbsn.data.manifest import DTYPES, Manifest, Shard
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import DataError


def make_patches(count, size=256, dtype="uint8", seed=0):
    values = np.random.default_rng(seed).random((count, size, size, 3), np.float32)
    dtype = DTYPES[dtype]
    return values if dtype.kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def write(path, patches):
    with RecordWriter(path) as writer:
        for patch in patches:
            writer.write(patch)
    return writer


@pytest.fixture(params=[*DTYPES])
def dtype(request):
    return request.param


def test_patches_come_back(tmp_path, dtype):
    patches = make_patches(3, dtype=dtype)
    write(tmp_path / "some.tfrecords", patches)
    records = PatchRecords.open(tmp_path / "some.tfrecords")
    assert (len(records), records.patch_size, records.dtype) == (3, 256, DTYPES[dtype])
    for record, patch in zip(records, patches, strict=True):
        np.testing.assert_array_equal(record, patch)
        assert record.dtype == patch.dtype
        assert record.flags.aligned
        assert not record.flags.writeable


def test_index_outside_is_an_index_error(tmp_path):
    write(tmp_path / "some.tfrecords", make_patches(2))
    records = PatchRecords.open(tmp_path)
    for index in (2, -1):
        with pytest.raises(IndexError, match="number of patches is 2"):
            records[index]


def test_tensorflow_reads_ours(tmp_path, dtype):
    patches = make_patches(3, size=7, dtype=dtype)
    write(tmp_path / "some.tfrecords", patches)
    spec = {"Noisy": tf.io.FixedLenFeature([], tf.string)}
    read = [
        tf.io.decode_raw(tf.io.parse_single_example(example, spec)["Noisy"], dtype).numpy()
        for example in tf.data.TFRecordDataset(str(tmp_path / "some.tfrecords"))
    ]
    np.testing.assert_array_equal(np.reshape(read, patches.shape), patches)


def test_we_read_tensorflows_and_write_the_same_bytes(tmp_path, dtype):
    patches = make_patches(2, dtype=dtype)
    theirs, ours = tmp_path / "theirs.tfrecords", tmp_path / "ours.tfrecords"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for patch in patches:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[patch.tobytes()]))
            example = tf.train.Example(features=tf.train.Features(feature={"Noisy": feature}))
            writer.write(example.SerializeToString())
    np.testing.assert_array_equal(list(PatchRecords.open(theirs)), patches)
    write(ours, patches)
    assert ours.read_bytes() == theirs.read_bytes()


def test_reads_the_authors_sidd_record(golden):
    (patch,) = PatchRecords.open(golden("records/SIDD_one.tfrecords"))
    assert patch.dtype == np.uint8
    assert hashlib.sha256(patch.tobytes()).hexdigest()[:16] == "6b25e77e9200e329"


@pytest.mark.parametrize(("name", "key"), [("SIDD_one", "sidd_uint8"), ("DND_one", "dnd_float32")])
def test_reads_and_rewrites_the_authors_files_byte_for_byte(tmp_path, golden, name, key):
    expected = np.load(golden("records/one_patches.npz"))[key]
    path = golden(f"records/{name}.tfrecords")
    (patch,) = PatchRecords.open(path)
    assert patch.dtype == expected.dtype
    np.testing.assert_array_equal(patch, expected)
    write(tmp_path / "again.tfrecords", [patch])
    assert (tmp_path / "again.tfrecords").read_bytes() == path.read_bytes()


def test_writer_says_what_it_wrote(tmp_path):
    writer = write(tmp_path / "some.tfrecords", make_patches(3, size=9))
    content = (tmp_path / "some.tfrecords").read_bytes()
    assert writer.records == 3
    assert writer.bytes == len(content)
    assert writer.sha256 == hashlib.sha256(content).hexdigest()


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path):
    with (
        pytest.raises(RuntimeError, match="stop"),
        RecordWriter(tmp_path / "some.tfrecords") as writer,
    ):
        writer.write(make_patches(1)[0])
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "patch",
    [
        np.zeros((8, 8, 3), np.float64),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 9, 3), np.uint8),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
    ],
)
def test_writer_refuses_what_a_reader_could_not_tell(tmp_path, patch):
    with (
        pytest.raises(DataError, match="Received: shape"),
        RecordWriter(tmp_path / "some.tfrecords") as writer,
    ):
        writer.write(np.zeros((8, 8, 3), np.uint8))
        writer.write(patch)


@pytest.mark.parametrize("place", [3, 10, 25, 100_000, -2])
def test_any_flipped_bit_is_noticed(tmp_path, place):
    """In the length, its checksum, the protobuf head, the pixels and the data checksum."""
    path = tmp_path / "some.tfrecords"
    write(path, make_patches(3))
    content = bytearray(path.read_bytes())
    frame = len(content) // 3
    content[frame + place % frame] ^= 0x10
    path.write_bytes(content)
    records = PatchRecords.open(path)
    np.testing.assert_array_equal(records[0], make_patches(3)[0])
    np.testing.assert_array_equal(records[2], make_patches(3)[2])
    with pytest.raises(DataError, match=r"Record 1 of .*some\.tfrecords is damaged"):
        records[1]


def test_file_cut_off_is_noticed_when_opened(tmp_path):
    path = tmp_path / "some.tfrecords"
    write(path, make_patches(2))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"Record 1 of .*some\.tfrecords is cut off"):
        PatchRecords.open(path)


def test_file_cut_off_or_gone_afterwards_is_noticed_when_read(tmp_path):
    path = tmp_path / "some.tfrecords"
    write(path, make_patches(2))
    records = PatchRecords.open(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"Record 1 of .*some\.tfrecords is damaged"):
        records[1]
    path.unlink()
    with pytest.raises(DataError, match=r"Record 0 of .*some\.tfrecords cannot be read"):
        records[0]


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(200_000)])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "some.tfrecords").write_bytes(content)
    with pytest.raises(DataError, match=r"Record 0 of .*some\.tfrecords"):
        PatchRecords.open(tmp_path)


def test_other_patch_sizes_need_a_manifest(tmp_path):
    patches = make_patches(2, size=64)
    shard = write(tmp_path / "some.tfrecords", patches)
    with pytest.raises(DataError, match=r"256x256x3"):
        PatchRecords.open(tmp_path)
    entry = Shard("some.tfrecords", shard.records, shard.bytes, shard.sha256, 0)
    Manifest("folder", ".", 64, 50, 0, "uint8", shards=(entry,)).write(tmp_path)
    np.testing.assert_array_equal(list(PatchRecords.open(tmp_path)), patches)


def test_folder_of_several_files_is_one_sequence(tmp_path):
    patches = make_patches(3)
    write(tmp_path / "b.tfrecords", patches[2:])
    write(tmp_path / "a.tfrecords", patches[:2])
    (tmp_path / ".a.0123.tfrecords").write_bytes(b"left behind by a killed writer")
    records = PatchRecords.open(tmp_path)
    assert [path.name for path in records.paths] == ["a.tfrecords", "b.tfrecords"]
    np.testing.assert_array_equal(list(records), patches)


def test_files_of_different_dtypes_are_refused(tmp_path):
    write(tmp_path / "a.tfrecords", make_patches(1))
    write(tmp_path / "b.tfrecords", make_patches(1, dtype="float32"))
    with pytest.raises(DataError, match=r"b\.tfrecords .*256x256x3 uint8"):
        PatchRecords.open(tmp_path)


@pytest.fixture
def prepared(tmp_path):
    shard = write(tmp_path / "some.tfrecords", make_patches(2))
    entry = Shard("some.tfrecords", shard.records, shard.bytes, shard.sha256, 0)
    Manifest("folder", ".", 256, 200, 0, "uint8", shards=(entry,)).write(tmp_path)
    return tmp_path


def test_only_what_the_manifest_lists_is_read(prepared):
    write(prepared / "stale.tfrecords", make_patches(1))
    assert len(PatchRecords.open(prepared)) == 2


def test_shard_that_is_gone_is_named(prepared):
    (prepared / "some.tfrecords").unlink()
    with pytest.raises(DataError, match=r"some\.tfrecords cannot be read"):
        PatchRecords.open(prepared)


def test_shard_with_fewer_records_than_listed_is_noticed(prepared):
    write(prepared / "some.tfrecords", make_patches(1))
    with pytest.raises(DataError, match=r", but its manifest\.json lists 2"):
        PatchRecords.open(prepared)


def test_data_set_without_patches_is_refused(tmp_path):
    Manifest("folder", ".", 256, 200, 0, "uint8").write(tmp_path)
    with pytest.raises(DataError, match="holds no patches"):
        PatchRecords.open(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_what_is_no_data_set_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"Prepare one with cbsn prepare"):
        PatchRecords.open(tmp_path / name)


def test_many_threads_may_read(tmp_path):
    patches = make_patches(8)
    write(tmp_path / "some.tfrecords", patches)
    records = PatchRecords.open(tmp_path)
    order = np.random.default_rng(0).integers(8, size=200)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for index, record in zip(order, pool.map(records.__getitem__, order), strict=True):
            np.testing.assert_array_equal(record, patches[index])


def test_reading_needs_no_tensorflow(run_python):
    done = run_python("import sys, cbsn.data.records; sys.exit('tensorflow' in sys.modules)")
    assert done.returncode == 0


def test_what_cannot_be_looked_at_is_refused(prepared, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    for name in ("is_file", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(type(prepared), name, refuse)
            with pytest.raises(DataError, match="Permission denied"):
                PatchRecords.open(prepared / "some.tfrecords")


@pytest.mark.parametrize("channels", [1, 3])
def test_volumes_come_back(tmp_path, channels):
    volumes = np.random.default_rng(0).random((3, 4, 6, 6, channels), np.float32)
    shard = write(tmp_path / "some.tfrecords", volumes)
    names = "some.tfrecords", shard.records, shard.bytes, shard.sha256, 0
    kind = {"kind": "stack", "dtype": "float32", "channels": channels}
    sizes = {"patch_size": 6, "patch_depth": 4, "stride": 6, "offset": 0}
    Manifest(root="", **kind, **sizes, shards=(Shard(*names),)).write(tmp_path)
    records = PatchRecords.open(tmp_path)
    assert (records.patch_size, records.patch_depth, records.channels) == (6, 4, channels)
    np.testing.assert_array_equal([*records], volumes)
    with RecordWriter(tmp_path / "other.tfrecords") as writer:
        writer.write(volumes[0])
        with pytest.raises(DataError, match=rf"of shape \(4, 6, 6, {channels}\)"):
            writer.write(volumes[0][:3])
    with (
        pytest.raises(DataError, match=r"of shape \(4, 6, 6, 3\)"),
        RecordWriter(tmp_path / "other.tfrecords") as writer,
    ):
        writer.write(np.zeros((4, 6, 5, 3), "uint8"))
