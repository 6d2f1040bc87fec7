import json

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from cbsn.errors import ConfigError, DataError, ImageError
from data_prep.sources import find_raw, write_pairs

GRAY8 = np.arange(6, dtype=np.uint8).reshape(2, 3)
GRAY16 = GRAY8.astype(np.uint16) * 1000


def find(dataset, source="dataset"):
    return find_raw(dataset, source)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_pictures_of_a_folder(tmp_path):
    save(tmp_path / "b.png", GRAY8)
    save(tmp_path / "a.bmp", GRAY8)
    (tmp_path / "notes.txt").write_text("no picture")
    raw = find(tmp_path)
    assert [*raw.names()] == ["a.bmp", "b.png"]
    assert (raw.kind, raw.root, raw.dtype, raw.offset) == ("folder", tmp_path, "uint8", 0)
    assert raw.longest_side(raw.files[0]) == 3


def test_names_of_a_glob_are_relative_to_its_fixed_part(tmp_path):
    save(tmp_path / "a" / "x" / "1.png", GRAY8)
    save(tmp_path / "b" / "x" / "1.png", GRAY8)
    raw = find(f"{tmp_path}/*/x/*.png")
    assert raw.root == tmp_path
    assert [*raw.names()] == ["a/x/1.png", "b/x/1.png"]


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
    save(tmp_path / "photos" / "1.png", GRAY8)
    monkeypatch.chdir(tmp_path)
    assert find("photos").files == (tmp_path / "photos" / "1.png",)


def test_single_picture(tmp_path):
    assert [*find(save(tmp_path / "1.png", GRAY8)).names()] == ["1.png"]


def test_no_picture_is_an_error(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        find(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "dtype"),
    [
        ("x.png", GRAY16, "uint16"),
        ("x.tif", GRAY8, "uint8"),
        ("x.tif", GRAY16, "uint16"),
        ("x.tif", GRAY8.astype(np.float32) / 255, "float32"),
    ],
)
def test_widest_dtype_is_told_by_the_headers(tmp_path, name, array, dtype):
    save(tmp_path / "8.jpg", GRAY8)
    save(tmp_path / name, array)
    assert find(tmp_path).dtype == dtype


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"II*\0", b"II*\0\xff\xff\0\0abc", b"MM??"])
def test_broken_headers_do_not_stop_the_search(tmp_path, content):
    (tmp_path / "broken.tif").write_bytes(content)
    save(tmp_path / "good.png", GRAY16)
    raw = find(tmp_path)
    assert (len(raw.files), raw.dtype) == (2, "uint16")


def test_gray_is_repeated_and_alpha_dropped(tmp_path):
    save(tmp_path / "gray.png", GRAY16 * 13)
    raw = find(tmp_path)
    gray, value_range = raw.read(tmp_path / "gray.png")
    np.testing.assert_array_equal(gray, np.stack([GRAY16 * 13] * 3, axis=-1))
    assert value_range.is_of(np.uint16)
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    color, _ = raw.read(save(tmp_path / "rgba.png", rgba))
    np.testing.assert_array_equal(color, rgba[..., :3])


def test_broken_picture_is_an_error(tmp_path):
    path = save(tmp_path / "x.png", GRAY8)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"x\.png"):
        find(tmp_path).read(path)


def test_noisy_pictures_of_sidd(tmp_path):
    scene = tmp_path / "SIDD_Medium_Srgb" / "Data" / "0001_001_S6"
    for name in ("0001_NOISY_SRGB_011.PNG", "0001_GT_SRGB_011.PNG", "0001_noisy_srgb_010.png"):
        save(scene / name, np.zeros((4, 4, 3), np.uint8))
    (scene / "NOISY.txt").write_text("no picture")
    raw = find("SIDD", tmp_path)
    assert [*raw.names()] == [
        "0001_001_S6/0001_NOISY_SRGB_011.PNG",
        "0001_001_S6/0001_noisy_srgb_010.png",
    ]
    assert (raw.kind, raw.dtype, raw.offset) == ("SIDD", "uint8", 10)
    assert raw.read(raw.files[0])[0].shape == (4, 4, 3)


@pytest.mark.parametrize("name", ["dnd_2017", "dnd2017"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pictures_of_dnd_are_turned(tmp_path, random, name, dtype):
    stored = random.random((3, 9, 5)).astype(dtype)
    folder = tmp_path / name / "images_srgb"
    folder.mkdir(parents=True)
    for number in (2, 1):
        with h5py.File(folder / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = stored
    raw = find("dnd", tmp_path)
    assert [*raw.names()] == ["0001.mat", "0002.mat"]
    assert (raw.kind, raw.dtype, raw.offset) == ("DND", "float32", 0)
    image, value_range = raw.read(raw.files[0])
    assert value_range.is_of(image.dtype)
    assert (image.shape, image.dtype) == ((5, 9, 3), np.float32)
    np.testing.assert_array_equal(image, stored.T.astype(np.float32))
    assert raw.longest_side(raw.files[0]) == 9


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("SIDD", r"SIDD_Medium_Srgb/Data/\*/\*NOISY\*\.PNG.*--source"),
        ("DND", r"dnd_2017/images_srgb or .*dnd2017/images_srgb"),
    ],
)
def test_where_it_looked_is_said(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        find(kind, tmp_path)


NOISY = "ValidationNoisyBlocksSrgb"
CLEAN = "ValidationGtBlocksSrgb"


def write_mats(folder, shape=(2, 3, 8, 8, 3), clean_shape=None, clean_name=CLEAN):
    random = np.random.default_rng(0)
    noisy = random.integers(256, size=shape, dtype=np.uint8)
    clean = random.integers(256, size=clean_shape or shape, dtype=np.uint8)
    scipy.io.savemat(folder / f"{NOISY}.mat", {NOISY: noisy})
    scipy.io.savemat(folder / f"{clean_name}.mat", {clean_name: clean})
    return noisy, clean


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("clean_name", [CLEAN, "ValidationGTBlocksSrgb"])
def test_blocks_become_pairs_of_equal_names(tmp_path, clean_name):
    blocks = write_mats(tmp_path, clean_name=clean_name)
    out = tmp_path / "a" / "b"
    assert "6 pairs" in write_pairs(tmp_path, out)
    expected = [f"{n:04d}_{m:02d}.png" for n in range(2) for m in range(3)]
    for side, values in zip(("noisy", "clean"), blocks, strict=True):
        assert names(out / side) == expected
        with Image.open(out / side / "0001_02.png") as picture:
            np.testing.assert_array_equal(picture, values[1, 2])


def test_blocks_are_the_references(tmp_path, golden):
    folder = golden("records/prep_input")
    write_pairs(folder, tmp_path)
    stored = scipy.io.loadmat(folder / f"{NOISY}.mat")[NOISY]
    for index, path in enumerate(sorted((tmp_path / "noisy").iterdir())):
        np.testing.assert_array_equal(Image.open(path), stored[divmod(index, 3)])
    assert index == 5


def test_second_run_writes_nothing(tmp_path):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    marked = tmp_path / "out" / "noisy" / "0000_00.png"
    marked.write_bytes(b"marked")
    assert "already done" in write_pairs(tmp_path, tmp_path / "out")
    assert marked.read_bytes() == b"marked"
    write_pairs(tmp_path, tmp_path / "out", force=True)
    assert marked.read_bytes() != b"marked"


def test_a_missing_pair_is_made_again(tmp_path):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    missing = tmp_path / "out" / "clean" / "0001_01.png"
    missing.unlink()
    write_pairs(tmp_path, tmp_path / "out")
    assert missing.stat().st_size > 0


@pytest.mark.parametrize("state", ["", "[]", "{}", "[" * 10**5, '{"pairs": 6}'])
def test_pairs_whose_state_is_unknown_are_replaced_only_by_force(tmp_path, state):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    block = tmp_path / "out" / "clean" / "0001_01.png"
    block.write_bytes(b"mine")
    (tmp_path / "out" / "pairs.json").write_text(state)
    with pytest.raises(ConfigError, match=r"pairs\.json is no file of cbsn prepare.*--out"):
        write_pairs(tmp_path, tmp_path / "out")
    assert block.read_bytes() == b"mine"
    write_pairs(tmp_path, tmp_path / "out", force=True)
    assert block.stat().st_size > 4


def test_pairs_of_earlier_versions_are_made_again(tmp_path):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    path = tmp_path / "out" / "pairs.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({key: state[key] for key in ("pairs", "sources")}))
    assert "6 pairs of blocks" in write_pairs(tmp_path, tmp_path / "out")
    assert "already done" in write_pairs(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["noisy/0000_00.png", "clean/9999_99.png", "clean/holiday.jpg"])
def test_files_of_others_are_neither_replaced_nor_deleted(tmp_path, name):
    write_mats(tmp_path)
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=rf"{name} is no file of cbsn prepare.*--out .*out"):
        write_pairs(tmp_path, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]
    assert mine.read_bytes() == b"mine"
    write_pairs(tmp_path, tmp_path / "out", force=True)
    assert (mine.read_bytes() == b"mine") == (name != "noisy/0000_00.png")


def _interrupt(*args):
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_removes_blocks_of_an_earlier_set(tmp_path, monkeypatch):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    mine = tmp_path / "out" / "noisy" / "9999_99.png"
    mine.write_bytes(b"mine")
    write_mats(tmp_path, shape=(1, 2, 8, 8, 3))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "fromarray", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_pairs(tmp_path, tmp_path / "out")
    assert "2 pairs" in write_pairs(tmp_path, tmp_path / "out")
    assert names(tmp_path / "out" / "clean") == ["0000_00.png", "0000_01.png"]
    assert names(tmp_path / "out" / "noisy") == ["0000_00.png", "0000_01.png", mine.name]


def test_changed_source_replaces_all_pairs(tmp_path):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    (tmp_path / "out" / "noisy" / "mine.png").write_bytes(b"not ours")
    write_mats(tmp_path, shape=(1, 2, 8, 8, 3))
    assert "2 pairs" in write_pairs(tmp_path, tmp_path / "out")
    assert names(tmp_path / "out" / "clean") == ["0000_00.png", "0000_01.png"]
    assert names(tmp_path / "out" / "noisy") == ["0000_00.png", "0000_01.png", "mine.png"]
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["pairs"] == 2


def test_missing_file_is_named_in_all_spellings(tmp_path):
    write_mats(tmp_path)
    (tmp_path / f"{CLEAN}.mat").unlink()
    with pytest.raises(DataError, match=r"GtBlocksSrgb\.mat or .*GTBlocksSrgb\.mat.*--source"):
        write_pairs(tmp_path, tmp_path / "out")


def test_sides_of_different_shapes_are_refused(tmp_path):
    write_mats(tmp_path, clean_shape=(2, 4, 8, 8, 3))
    with pytest.raises(DataError, match=r"do not belong together.*\(2, 3, 8.*\(2, 4, 8"):
        write_pairs(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_content_is_refused(tmp_path):
    write_mats(tmp_path, shape=(2, 8, 8, 3))
    with pytest.raises(DataError, match=r"must hold one array.*uint8 \(2, 8, 8, 3\)"):
        write_pairs(tmp_path, tmp_path / "out")


def test_damaged_file_is_refused(tmp_path):
    write_mats(tmp_path)
    path = tmp_path / f"{NOISY}.mat"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"ValidationNoisyBlocksSrgb\.mat cannot be read"):
        write_pairs(tmp_path, tmp_path / "out")
