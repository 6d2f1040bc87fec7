import numpy as np
import pytest

from cbsn.adaptation import picture_patches
from cbsn.adaptation.picture_patches import PicturePatches
from cbsn.data.image_io import Picture, write_picture
from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import DataError


@pytest.fixture
def save(tmp_path, random):
    """Writes a picture of noise; returns its pixels."""

    def write(name, height, width, channels=3, dtype="uint8"):
        pixels = random.uniform(0, 1, (height, width, channels)).astype("float32")
        if dtype != "float32":
            pixels = (pixels * np.iinfo(dtype).max).astype(dtype)
        write_picture(tmp_path / name, Picture(pixels, "PNG"))
        return pixels

    return write


@pytest.fixture
def read(tmp_path):
    return lambda: PicturePatches.read([tmp_path])


def _is_part(patch, picture):
    """Whether a patch lies somewhere in a picture."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)
    return (windows == patch).all(axis=(-3, -2, -1)).any()


def test_patches_of_a_picture_do_not_overlap(save, read, monkeypatch):
    monkeypatch.setattr(picture_patches, "PATCH_SIZE", 8)
    pixels = save("a.png", 27, 18)
    patches = read()
    assert len(patches) == 6 and patches.counts == [6] and patches.pictures == 1
    assert patches.patch_size == 8 and patches.dtype == np.uint8
    assert all(_is_part(patches[index], pixels) for index in range(6))
    # Of noise, no two pixels in a row are equal.
    rows = {row.tobytes() for index in range(6) for row in patches[index]}
    assert len(rows) == 6 * 8
    assert patches.describe(2).endswith("a.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_kinds_of_pictures(save, read, channels, dtype):
    pixels = save("a.png", 9, 12, channels, dtype)
    patches = read()
    assert patches.dtype == dtype and patches[0].shape == (9, 9, 3)
    color = pixels[..., : 3 if channels > 2 else 1]
    assert _is_part(patches[0], np.broadcast_to(color, (9, 12, 3)))


def test_mixed_kinds_become_floats(save, read):
    save("a.png", 9, 9, dtype="uint8")
    save("b.png", 9, 9, dtype="uint16")
    save("c.tif", 9, 9, dtype="float32")
    patches = read()
    assert patches.dtype == np.float32 and len(patches) == 3
    means = [float(patches[index].mean()) for index in range(3)]
    np.testing.assert_allclose(means, 0.5, atol=0.1)


def test_bad_pictures_are_left_out_and_named(tmp_path, save, read, capsys):
    save("good.png", 9, 9)
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    write_picture(tmp_path / "far.tif", Picture(np.full((9, 9, 3), 2.0, np.float32), "TIFF"))
    assert len(read()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("left out of the adapt") for line in lines)
    assert any("broken.png" in line for line in lines) and any("far.tif" in line for line in lines)
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match=r"no picture to adapt to\. Tried: 2"):
        read()


def test_pictures_smaller_than_most_are_left_out(save, read, capsys):
    for name, side in (("a", 40), ("b", 30), ("c", 30), ("d", 7)):
        save(f"{name}.png", side, side)
    patches = read()
    assert patches.patch_size == 30 and patches.pictures == 3
    assert "1 pictures smaller than 30 px" in capsys.readouterr().err


def test_patches_are_bounded_and_spread_evenly(save, read, monkeypatch):
    monkeypatch.setattr(picture_patches, "PATCH_SIZE", 8)
    monkeypatch.setattr(picture_patches, "MOST_PATCHES", 10)
    save("large.png", 48, 40)
    save("middle.png", 40, 40)
    save("small.png", 8, 16)
    patches = read()
    sources = [patches.describe(index) for index in range(len(patches))]
    shares = [
        sum(source.endswith(name) for source in sources)
        for name in ("small.png", "dle.png", "rge.png")
    ]
    assert shares == [2, 4, 4]  # what the small one does not fill goes to the others
    monkeypatch.setattr(picture_patches, "MOST_PATCHES", 2)
    assert read().pictures == len(read()) == 2


def test_reading_is_bounded(save, read, monkeypatch):
    for number in range(6):
        save(f"{number}.png", 10, 10)
    monkeypatch.setattr(picture_patches, "MOST_BYTES", 3 * 300)
    assert read().pictures == 3
    monkeypatch.setattr(picture_patches, "MOST_BYTES", 1)
    assert read().pictures == 1


def _numbered(count):
    patches = [np.full((4, 4, 3), index, np.uint8) for index in range(count)]
    return PicturePatches(patches, [f"{index}.png" for index in range(count)])


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (8, 1), (17, 2), (40, 5)])
def test_some_are_held_out(count, held_out):
    both = _numbered(count).split()
    values = [{int(part[index].max()) for index in range(len(part))} for part in both]
    assert len(values[1]) == held_out
    assert not values[0] & values[1] and len(values[0] | values[1]) == count


def test_a_single_patch_is_both():
    training, held_out = _numbered(1).split()
    assert len(training) == len(held_out) == 1


def test_pairs_stay_pairs():
    patches = _numbered(20).shuffled(3)
    assert [int(patches[index].max()) for index in range(20)] != [*range(20)]
    pairs = patches.paired([patches[index] + 100 for index in range(5)])
    assert len(pairs) == 5 and pairs[0].shape == (4, 4, 6)
    for index in range(5):
        np.testing.assert_array_equal(pairs[index][..., 3:], pairs[index][..., :3] + 100)
        assert pairs.describe(index) == patches.describe(index)


def test_the_pipeline_takes_them():
    pipeline = PatchPipeline(_numbered(5), 2, 4)
    batch = next(iter(pipeline.dataset()))
    assert batch.shape == (4, 2, 2, 3)
    assert len({int(crop.max()) for crop in batch.numpy()}) == 4
    assert "png" in pipeline.sources(0)[0]
