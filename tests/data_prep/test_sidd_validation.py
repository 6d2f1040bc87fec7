import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cbsn.errors import DataError
from data_prep.sidd_validation import write_pairs

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


@pytest.mark.parametrize("state", [None, "", "[]", "{}", "[" * 10**5])
def test_incomplete_pairs_are_made_again(tmp_path, state):
    write_mats(tmp_path)
    write_pairs(tmp_path, tmp_path / "out")
    missing = tmp_path / "out" / "clean" / "0001_01.png"
    if state is None:
        missing.unlink()
    else:
        missing.write_bytes(b"")
        (tmp_path / "out" / "pairs.json").write_text(state)
    write_pairs(tmp_path, tmp_path / "out")
    assert missing.stat().st_size > 0


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
    with pytest.raises(DataError, match=r"should hold one array.*uint8 \(2, 8, 8, 3\)"):
        write_pairs(tmp_path, tmp_path / "out")


def test_damaged_file_is_refused(tmp_path):
    write_mats(tmp_path)
    path = tmp_path / f"{NOISY}.mat"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"ValidationNoisyBlocksSrgb\.mat cannot be read"):
        write_pairs(tmp_path, tmp_path / "out")
