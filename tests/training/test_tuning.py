import numpy as np
import pytest
import tifffile

from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import CbsnWarning, DataError
from cbsn.images.image_files import Picture, write_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.stack_options import StackOptions, open_scaled
from cbsn.recipes import customised
from cbsn.training import tuning as module
from cbsn.training.tuning import PicturePatches, Tuned


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
    return lambda **options: PicturePatches.read([tmp_path], _no_stacks, **options)


def _no_stacks(path):
    raise AssertionError(f"{path} is no stack")


def _is_part(patch, picture):
    """Whether a patch lies somewhere in a picture."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)
    return (windows == patch).all(axis=(-3, -2, -1)).any()


def test_patches_of_a_picture_do_not_overlap(save, read, monkeypatch):
    monkeypatch.setattr(module, "PATCH_SIZE", 16)
    pixels = save("a.png", 54, 36)
    patches = read()
    assert len(patches) == 6 and patches.counts == [6] and patches.pictures == 1
    assert patches.patch_size == 16 and patches.dtype == np.uint8
    assert all(_is_part(patches[index], pixels) for index in range(6))
    # Of noise, no two pixels in a row are equal.
    rows = {row.tobytes() for index in range(6) for row in patches[index]}
    assert len(rows) == 6 * 16
    assert patches.describe(2).endswith("a.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_kinds_of_pictures(save, read, channels, dtype):
    pixels = save("a.png", 16, 20, channels, dtype)
    patches = read()
    assert patches.dtype == dtype and patches[0].shape == (16, 16, 3)
    color = pixels[..., : 3 if channels > 2 else 1]
    assert _is_part(patches[0], np.broadcast_to(color, (16, 20, 3)))


def test_mixed_kinds_become_floats(save, read):
    save("a.png", 16, 16, dtype="uint8")
    save("b.png", 16, 16, dtype="uint16")
    save("c.tif", 16, 16, dtype="float32")
    patches = read()
    assert patches.dtype == np.float32 and len(patches) == 3
    means = [float(patches[index].mean()) for index in range(3)]
    np.testing.assert_allclose(means, 0.5, atol=0.1)


@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
def test_bad_pictures_are_left_out_and_named(tmp_path, save, read):
    save("good.png", 16, 16)
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    nan = np.full((16, 16, 3), np.nan, np.float32)
    write_picture(tmp_path / "nan.tif", Picture(nan, "TIFF"))
    with pytest.warns(CbsnWarning, match="not used for the adaptation: .*") as warned:
        assert len(read()) == 1
    lines = [str(each.message) for each in warned]
    assert len(lines) == 2
    assert any("broken.png" in line for line in lines) and any("nan.tif" in line for line in lines)
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match=r"No picture has .* without adapting\. Tried: 2"):
        read()


def test_pictures_smaller_than_most_are_left_out(save, read):
    for name, side in (("a", 40), ("b", 30), ("c", 30), ("d", 17)):
        save(f"{name}.png", side, side)
    with pytest.warns(CbsnWarning, match="smaller than 30 px: 1, such as"):
        patches = read()
    assert patches.patch_size == 30 and patches.pictures == 3


@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
def test_lines_and_dots_hide_no_picture(tmp_path, save, read):
    for name, size in (("a", (1, 300)), ("b", (300, 15)), ("c", (1, 1)), ("d", (2, 2))):
        save(f"{name}.png", *size)
    with pytest.raises(DataError, match="16 px in height and width"):
        read()
    save("e.png", 20, 16)
    with pytest.warns(CbsnWarning, match="a.png has 300 × 1 px, too few to learn from"):
        patches = read()
    assert patches.patch_size == 16 and patches.pictures == 1


def test_twelve_bits_are_read_as_when_they_are_denoised(tmp_path, random, read):
    pixels = random.integers(0, 4096, (20, 20, 3)).astype(np.uint16)
    pixels[0, 0] = 4095
    write_picture(tmp_path / "a.tif", Picture(pixels, "TIFF"))
    for white, largest in ((None, 65535), (8190, 32767), (65535, 4095)):
        patches = read(white=white)
        assert abs(int(patches[0].max()) - largest) <= 1


def test_missing_values_of_stacks_are_refused_or_filled(tmp_path, random):
    """Also in a plane that the statistics are not taken of."""
    values = random.normal(500, 20, (70, 20, 24)).astype("float32")
    values[1, 10, 10] = np.nan
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack")
    recipe = customised("distill", filters=4, channels=1, depth=1)
    model = Denoiser(recipe, recipe.build_network())

    def read(**options):
        return PicturePatches.read(
            [path], lambda p: open_scaled(p, [model], StackOptions(**options))
        )

    with pytest.raises(DataError), pytest.warns(CbsnWarning, match="--nan fill"):
        read()
    patches = read(nan="fill")
    assert len(patches) == 70
    assert all(np.isfinite(patches[index]).all() for index in range(70))


def test_patches_are_bounded_and_spread_evenly(save, read, monkeypatch):
    monkeypatch.setattr(module, "PATCH_SIZE", 16)
    monkeypatch.setattr(module, "MOST_PATCHES", 10)
    save("large.png", 96, 80)
    save("middle.png", 80, 80)
    save("small.png", 16, 32)
    patches = read()
    sources = [patches.describe(index) for index in range(len(patches))]
    shares = [
        sum(source.endswith(name) for source in sources)
        for name in ("small.png", "dle.png", "rge.png")
    ]
    assert shares == [2, 4, 4]  # what the small one does not fill goes to the others
    monkeypatch.setattr(module, "MOST_PATCHES", 2)
    assert read().pictures == len(read()) == 2


def test_reading_is_bounded(save, read, monkeypatch):
    for number in range(6):
        save(f"{number}.png", 20, 20)
    monkeypatch.setattr(module, "MOST_BYTES", 3 * 1200)
    assert read().pictures == 3
    monkeypatch.setattr(module, "MOST_BYTES", 1)
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


@pytest.mark.parametrize("after", [1.0, 1.5, float("nan"), float("inf")])
def test_no_better_is_what_is_not_less(after):
    assert not Tuned(None, 1, 1.0, after).is_better
    assert not Tuned(None, 1, float("nan"), after).is_better


class Weights:
    """A network of one weight, whose error is 1 at 0 and grows with it."""

    def __init__(self, value):
        self.value = value

    def get_weights(self):
        return [np.array(self.value)]

    def set_weights(self, weights):
        self.value = float(weights[0])


@pytest.mark.parametrize(
    ("slope", "share"), [(0.01, 1), (0.02, 0.5), (0.09, 0.125), (0.2, 0), (-1, 1)]
)
def test_as_much_is_taken_as_does_no_harm(slope, share):
    """0.05 dB are a growth by 1.16 %."""
    network = Weights(1.0)

    def measure():
        return 1 - network.value, 1 + slope * network.value

    loss, taken = module._without_harm(network, [np.array(0.0)], measure, module._HARM)
    assert taken == share
    if share:
        assert network.value == share and loss == measure()[0]
    assert Tuned(network, 1, 1.0, loss, taken).is_better == (share > 0)


def test_outliers_of_pictures_are_repaired_if_asked(tmp_path, random):
    pixels = random.normal(100, 5, (64, 64, 1)).astype("uint8")
    pixels[20, 30] = 250
    write_picture(tmp_path / "a.png", Picture(pixels, "PNG"))
    for repair, highest in ((None, 250), ("pixels", 130)):
        patches = PicturePatches.read([tmp_path], _no_stacks, repair=repair)
        assert patches[0].max() <= highest
        assert (patches[0].max() == 250) == (repair is None)
