import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import uniform_filter

from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RECIPES, customised
from cbsn.training.dataset import (
    choose_hole,
    choose_mask_shape,
    choose_strides,
    is_gray,
    open_records,
    without_auto,
)
from cbsn.training.options import DataOptions
from data_prep.prepare import prepare


@pytest.fixture
def photos(tmp_path, monkeypatch, random):
    """Pictures, which are prepared in this process: other ones have nothing to do with these."""

    def prepare_here(dataset, *, white, workers, **stacks):
        assert workers >= 1
        return prepare(dataset, white=white, **stacks)

    monkeypatch.setattr("cbsn.training.dataset.prepare", prepare_here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = random.integers(0, 256, (256, 456, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    return tmp_path / "photos"


def _open(dataset, convert=True, **options):
    return open_records(DataOptions(dataset=str(dataset), **options), convert=convert)


@pytest.mark.parametrize("pattern", ["photos", "photos/*.png"])
def test_pictures_are_prepared_once(photos, pattern, tmp_path, capsys):
    assert len(_open(pattern)) == 4
    assert "already done: 0" in capsys.readouterr().out
    assert len(_open(pattern)) == 4
    assert "already done: 2" in capsys.readouterr().out


def test_broken_pictures_are_named_and_the_rest_is_used(photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"no picture")
    assert len(_open("photos")) == 4
    assert "broken.png" in capsys.readouterr().err


def test_prepared_folder_and_record_file(photos, tmp_path):
    first = _open("photos")
    assert len(_open(str(tmp_path / "dataset/photos256"))) == 4
    np.testing.assert_array_equal(_open("dataset/photos256")[2], first[2])


@pytest.mark.parametrize("name", ["SIDD", "dnd"])
def test_the_authors_files_by_name(tmp_path, name):
    with RecordWriter(tmp_path / f"{name.upper()}256.tfrecords") as writer:
        writer.write(np.zeros((256, 256, 3), "uint8"))
    assert len(_open(name, source=tmp_path)) == 1


def test_an_unprepared_benchmark_says_how(tmp_path):
    with pytest.raises(DataError, match=r"cbsn prepare SIDD --source"):
        _open("SIDD", source=tmp_path)


def test_a_benchmark_with_other_patches_is_named(tmp_path, photos):
    prepare(photos, out=tmp_path / "SIDD512")
    with pytest.raises(DataError, match=r"SIDD256, which SIDD .*SIDD512: give that folder"):
        _open("SIDD", source=tmp_path)


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        _open(str(tmp_path / "nowhere"))


def test_another_process_only_reads(photos, tmp_path, capsys):
    with pytest.raises(DataError, match="photos256"):
        _open("photos", convert=False)
    first = _open("photos")
    before = {path: path.stat().st_mtime_ns for path in Path("dataset/photos256").iterdir()}
    capsys.readouterr()
    np.testing.assert_array_equal(_open("photos", convert=False)[3], first[3])
    assert {p: p.stat().st_mtime_ns for p in Path("dataset/photos256").iterdir()} == before
    assert capsys.readouterr().out == ""


def test_gray_is_told_by_the_patches(photos, tmp_path):
    assert not is_gray(_open("photos"))
    for i, path in enumerate(sorted(photos.iterdir())):
        Image.open(path).convert("L").save(tmp_path / f"{i}.gray.png")
    gray = _open(str(tmp_path / "*.gray.png"))
    assert is_gray(gray)
    (tmp_path / "negative").mkdir()
    for path in tmp_path.glob("*.gray.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "negative" / path.name)
    shots = _open(str(tmp_path / "*.gray.png"), second_shots="negative")
    assert (shots[0][..., 0] != shots[0][..., 3]).any()
    assert is_gray(shots)


def test_second_shots_are_prepared_and_paired(photos, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    for path in photos.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(second / path.name)
    records = _open("photos", second_shots="second")
    assert len(records) == 4
    assert (records[0].astype(int).reshape(256, 256, 2, 3).sum(axis=2) == 255).all()


AUTO = {"stride_b": "auto"}


def _smooth_patches():
    """Eight patches of slow gradients."""
    y, x = np.mgrid[0:256, 0:256] / 256
    for i in range(8):
        ramp = 100 + 40 * (x * np.cos(i) + y * np.sin(i))
        yield np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)


def _write(path, patches):
    with RecordWriter(path) as writer:
        for patch in patches:
            writer.write(np.clip(np.rint(patch), 0, 255).astype("uint8"))
    return PatchRecords.open(path)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    """Noise that is the mean of 4 × 4 independent pixels: gone at a distance of 4."""
    random = np.random.default_rng(0)
    patches = [
        patch + 40 * uniform_filter(random.normal(size=patch.shape), (4, 4, 1))
        for patch in _smooth_patches()
    ]
    return _write(tmp_path_factory.mktemp("blurred") / "blurred.tfrecords", patches)


@pytest.fixture
def clean(tmp_path):
    return _write(tmp_path / "clean.tfrecords", _smooth_patches())


def _chosen(records, recipe="cbsn", changes=AUTO, noise=None, gray=False):
    return choose_strides(recipe, changes, records, noise, gray)


def test_correlated_noise(blurred):
    changes, lines = _chosen(blurred)
    assert changes == {"stride_b": 4, "stride_i": 2}
    assert lines and all(isinstance(line, str) for line in lines)


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
    assert lines[-1] == "4 does not divide the patch size, so the stride is 5."
    with pytest.raises(ConfigError, match="multiple of"):
        _chosen(blurred, changes={**AUTO, "patch_size": 22})


def test_gray_patches_count_once(tmp_path, random):
    patches = [
        np.repeat(patch[..., :1] + random.normal(0, 20, (256, 256, 1)), 3, axis=-1)
        for patch in _smooth_patches()
    ]
    changes, _ = _chosen(_write(tmp_path / "gray.tfrecords", patches), gray=True)
    assert changes == {"stride_b": 1, "stride_i": 1}


def test_stride_and_mask_may_both_be_chosen(blurred):
    changes, _ = choose_strides("dil-unet", {**AUTO, **MASK}, blurred, None, False)
    assert changes["mask_shape"] == "auto" and isinstance(changes["stride_b"], int)
    changes, _ = choose_mask_shape("dil-unet", changes, blurred, None, False)
    assert customised("dil-unet", **changes).network_config["mask_shape"] == changes["mask_shape"]


def test_a_hole_that_hides_the_correlated_noise(blurred, clean):
    auto = {"hole": "auto"}
    changes, lines = choose_hole("tmbsn", auto, blurred, None, False)
    assert changes == {"hole": 7, "denoise_hole": 3}  # as far as with a stride of 4
    assert lines[0] == "Hole: 7 px" and "correlated" in lines[1]
    customised("tmbsn", **changes).build_network()
    white = Noise("gaussian", sigma=(25, 25))
    changes, _ = choose_hole("tmbsn", auto, clean, white, False)
    assert changes == {"hole": 1, "denoise_hole": 1}
    changes, _ = choose_hole("tmbsn", {**auto, "denoise_hole": 0}, blurred, None, False)
    assert changes == {"hole": 7, "denoise_hole": 0}
    assert choose_hole("cbsn", {"filters": 4}, blurred, None, False) == ({"filters": 4}, [])


def test_only_some_recipes_have_a_hole():
    assert without_auto("tmbsn", {"hole": "auto"}) == {"hole": None}
    for hole in ("auto", 9):
        with pytest.raises(ConfigError, match=f"'cbsn' has no --hole: .* --hole {hole}$"):
            without_auto("cbsn", {"hole": hole})


def test_a_hole_takes_the_place_of_strides():
    assert without_auto("cbsn-hole", {"stride_b": 1}) == {"stride_b": 1}
    with pytest.raises(ConfigError, match=r"use --hole auto.*Received: --stride_b 5$"):
        without_auto("cbsn-hole", {"stride_b": 5})


def test_settings_are_told_by_the_names_of_their_flags():
    with pytest.raises(ConfigError, match=r"'n2v-unet' has no --modules: .*--modules 3$"):
        without_auto("n2v-unet", {"num_modules": 3})


def test_if_no_stride_will_do_the_first_one_is_named(blurred):
    wide = {**AUTO, "mask_shape": "x:64", "patch_size": 64}
    with pytest.raises(ConfigError, match="With this mask"):
        choose_strides("dil-unet", wide, blurred, None, False)


def test_patches_that_show_no_noise(tmp_path):
    texture = np.random.default_rng(0).integers(0, 2, (256, 256, 3)) * 255
    records = _write(tmp_path / "saturated.tfrecords", [texture])
    with pytest.raises(DataError, match=r"Or set the stride, such as --stride_b 5\.$"):
        _chosen(records)


def test_other_recipes_have_none():
    for name, recipe in RECIPES.items():
        if "stride_b" in recipe.objective_config and name != "cbsn-hole":
            assert without_auto(name, AUTO) == {"stride_b": None}
        else:
            with pytest.raises(ConfigError, match=f"{name}.*omit.*Received: --stride_b auto$"):
                without_auto(name, AUTO)
    assert without_auto("cbsn", {"stride_b": 3}) == {"stride_b": 3}


def test_a_wider_picture_has_the_patches_made_anew(photos, capsys):
    assert _open("photos").dtype == "uint8"
    tifffile.imwrite("photos/deep.tif", np.full((30, 30), 60000, "uint16"))
    assert _open("photos").dtype == "uint16"
    assert "uint16 from 3 of 3 images" in capsys.readouterr().out


@pytest.mark.parametrize("copied", [False, True])
def test_one_folder_for_both_shots_is_refused(photos, copied):
    second = shutil.copytree("photos", "copy") if copied else "photos"
    with pytest.raises(DataError, match="The second shots are the same pictures"):
        _open("photos", second_shots=second)


def test_second_shots_of_other_names_are_refused(photos):
    Path("second").mkdir()
    Image.new("RGB", (64, 64)).save("second/other.png")
    with pytest.raises(DataError, match="Each picture needs a second shot"):
        _open("photos", second_shots="second")


MASK = {"mask_shape": "auto"}


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1, 1), "point"), ((1, 3, 1), "x:2"), ((3, 1, 1), "y:2")]
)
def test_masks_suit_the_noise(size, expected, tmp_path, random):
    patches = [
        patch + 20 * uniform_filter(random.normal(size=patch.shape), size)
        for patch in _smooth_patches()
    ]
    records = _write(tmp_path / "noise.tfrecords", patches)
    changes, (first, *reasons) = choose_mask_shape(
        "n2v-unet", {**MASK, "filters": 8}, records, None, False
    )
    assert changes == {"mask_shape": expected, "filters": 8}
    assert first == f"Mask: {expected}" and len(reasons) == 1
    assert customised("n2v-unet", **changes).build_network().mask_shape == expected


def test_masks_of_added_noise(clean):
    noise = Noise("gaussian", sigma=(25, 25))
    assert choose_mask_shape("n2v-unet", MASK, clean, noise, False)[0] == {"mask_shape": "point"}


def test_a_mask_that_is_given_stays(clean):
    assert choose_mask_shape("n2v-unet", {"mask_shape": "x:3"}, clean, None, False) == (
        {"mask_shape": "x:3"},
        [],
    )


def test_no_mask_without_noise_to_see(tmp_path):
    texture = np.random.default_rng(0).integers(0, 2, (256, 256, 3)) * 255
    records = _write(tmp_path / "saturated.tfrecords", [texture])
    with pytest.raises(
        DataError, match=r"Or set the mask: --struct_mask point for white noise, .* --stride_b 5\.$"
    ):
        choose_mask_shape("n2v-unet", MASK, records, None, False)


def test_recipes_that_mask_nothing_have_no_mask_to_choose():
    for name in ("n2v-unet", "dil-unet"):
        assert without_auto(name, MASK) == {"mask_shape": None}
    for name in ("cbsn", "n2n-resunet"):
        with pytest.raises(ConfigError, match=f"{name}.* no --struct_mask"):
            without_auto(name, MASK)
        with pytest.raises(ConfigError, match=f"{name}.*Received: --struct_mask x:2$"):
            without_auto(name, {"mask_shape": "x:2"})


def test_strides_are_chosen_in_spite_of_line_noise(tmp_path, random):
    """Offsets of rows would pass for correlation of any reach."""
    patches = [
        patch
        + 30 * uniform_filter(random.normal(size=patch.shape), (2, 2, 1))
        + 8 * random.normal(size=(256, 1, 1))
        for patch in _smooth_patches()
    ]
    changes, lines = _chosen(_write(tmp_path / "lines.tfrecords", patches))
    assert changes["stride_b"] == 2
    assert any("each row has an offset of its own" in line for line in lines)


def test_patches_that_were_repaired_otherwise_are_refused(photos):
    first = _open("photos", repair="pixels")
    assert first.manifest.repair == "pixels"
    folder = str(first.paths[0].parent)
    assert _open(folder).manifest.repair == _open(folder, repair="pixels").manifest.repair
    with pytest.raises(ConfigError, match=r"with another --repair: pixels.*--repair rows$"):
        _open(folder, repair="rows")
