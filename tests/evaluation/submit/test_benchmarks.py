import json
import os
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from cbsn.errors import ConfigError, DataError
from cbsn.evaluation.submit.benchmarks import FILE, VARIABLE, DndSubmission, SiddSubmission


def test_golden_sidd_submission(golden, sidd_source, tmp_path, counting, assert_same_mat, capsys):
    submission = SiddSubmission(sidd_source, tmp_path, layouts="blocks, csv")
    paths = submission.run(counting())
    assert paths == [tmp_path / "SubmitSrgb.mat", tmp_path / "SubmitSrgb.csv"]
    folder = "submission_and_metric/sidd"
    assert_same_mat(paths[0], golden(f"{folder}/SubmitSrgb.mat"))
    assert paths[1].read_bytes() == golden(f"{folder}/SubmitSrgb.csv").read_bytes()
    assert len([*(tmp_path / "blocks").iterdir()]) == 64
    for name in ("0000_DN.png", "0033_DN.png"):
        pictures = tmp_path / "blocks" / name, golden(f"{folder}/{name}")
        np.testing.assert_array_equal(*(np.asarray(Image.open(p)) for p in pictures), strict=True)
    output = capsys.readouterr()
    assert "64 blocks denoised" in output.out and str(paths[1]) in output.out
    assert "has the shape 2 × 32 × 8 × 8 × 3, SIDD's has 40 × 32 × 256 × 256 × 3" in output.err
    assert not list(tmp_path.rglob(".*"))


def test_kit_layout(golden, sidd_source, tmp_path, counting):
    texts = {"MethodName": "C-BSN", "Authors": "A. Müller"}
    submission = SiddSubmission(sidd_source.parent, tmp_path, layouts="kit", texts=texts)
    assert submission.run(counting()) == [tmp_path / "kit" / "SubmitSrgb.mat"]
    assert not (tmp_path / "SubmitSrgb.mat").exists()
    path = tmp_path / "kit" / "SubmitSrgb.mat"
    assert {(name, kind) for name, _, kind in scipy.io.whosmat(path)} == {
        ("DenoisedBlocksSrgb", "cell"),
        ("TimeMPSrgb", "double"),
        ("OptionalData", "struct"),
    }
    kit = scipy.io.loadmat(path, simplify_cells=True)
    cells = kit["DenoisedBlocksSrgb"]
    blocks = scipy.io.loadmat(golden("submission_and_metric/sidd/SubmitSrgb.mat"))["Idenoised"]
    assert cells.shape == blocks.shape[:2]
    for place in np.ndindex(cells.shape):
        expected = blocks[place].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(cells[place], expected, strict=True)
    empty = {"PaperTitle", "Venue", "MachineSpecs"}
    assert kit["OptionalData"].keys() == {*texts, *empty}
    assert {key: kit["OptionalData"][key] for key in texts} == texts
    assert not any(kit["OptionalData"][key].size for key in empty)
    record = json.loads((tmp_path / "submission.json").read_text())
    assert kit["TimeMPSrgb"] == record["seconds_per_megapixel"] > 0


def test_texts_may_be_of_any_bytes(sidd_source, tmp_path, counting):
    """As a model's path may be, which is the name of the method unless there is another."""
    texts = {"MethodName": os.fsdecode(b"\xff\nmodel")}
    submission = SiddSubmission(sidd_source, tmp_path, layouts="kit", texts=texts)
    (path,) = submission.run(counting(), model={"path": texts["MethodName"], "sha256": ""})
    kit = scipy.io.loadmat(path, simplify_cells=True)
    assert kit["OptionalData"]["MethodName"] == "\\udcff\nmodel"
    assert (
        json.loads((tmp_path / "submission.json").read_text())["model"]["path"]
        == texts["MethodName"]
    )


def test_source_and_folder_may_have_any_names(sidd_source, tmp_path, counting):
    source = tmp_path / os.fsdecode(b"\xff '\n.mat")
    shutil.copy(sidd_source, source)
    out = tmp_path / os.fsdecode(b"\xfe\nout")
    SiddSubmission(source, out, layouts="blocks,csv,kit").run(counting())
    SiddSubmission(source, out, layouts="blocks,csv,kit", resume=True).run(counting())
    assert (out / "kit/SubmitSrgb.mat").is_file()


def test_another_layout_of_a_finished_submission(sidd_source, tmp_path, counting):
    SiddSubmission(sidd_source, tmp_path).run(counting())
    blocks = (tmp_path / "SubmitSrgb.mat").read_bytes()
    denoise = counting()
    SiddSubmission(sidd_source, tmp_path, layouts="csv", resume=True).run(denoise)
    assert denoise.calls == 0
    assert (tmp_path / "SubmitSrgb.csv").exists()
    assert (tmp_path / "SubmitSrgb.mat").read_bytes() == blocks


@pytest.mark.parametrize("layouts", ["", "blocks,zip"])
def test_unknown_layouts_are_refused(sidd_source, tmp_path, layouts):
    with pytest.raises(ConfigError, match=f"--layout takes any of blocks, csv, kit.*'{layouts}'"):
        SiddSubmission(sidd_source, tmp_path, layouts=layouts)


@pytest.mark.parametrize("name", ["", "nowhere", f"nowhere/{FILE}"])
def test_a_missing_file_is_said(tmp_path, name):
    with pytest.raises(DataError, match=r"There is no file .*Download .*BenchmarkNoisy.*--input"):
        SiddSubmission(tmp_path / name, tmp_path / "out")


def test_a_file_cut_off_is_refused(sidd_source, tmp_path):
    (tmp_path / FILE).write_bytes(sidd_source.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"damaged.*Download .* --input"):
        SiddSubmission(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("ValidationNoisyBlocksSrgb", np.zeros((2, 32, 8, 8, 3), np.uint8), f"no .* {VARIABLE}"),
        (VARIABLE, np.zeros((2, 32, 8, 8, 3)), r"float64 \(2, 32, 8, 8, 3\)"),
        (VARIABLE, np.zeros((2, 32, 8, 8), np.uint8), r"uint8 \(2, 32, 8, 8\)"),
        (VARIABLE, np.zeros((0, 32, 8, 8, 3), np.uint8), r"uint8 \(0, 32, 8, 8, 3\)"),
    ],
)
def test_other_content_is_refused(tmp_path, name, array, reason):
    scipy.io.savemat(tmp_path / FILE, {name: array})
    with pytest.raises(DataError, match=reason):
        SiddSubmission(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_source_is_refused_on_resume(sidd_source, tmp_path, counting):
    shutil.copy(sidd_source, tmp_path / FILE)
    SiddSubmission(tmp_path, tmp_path / "out").run(counting())
    blocks = scipy.io.loadmat(tmp_path / FILE)[VARIABLE]
    scipy.io.savemat(tmp_path / FILE, {VARIABLE: blocks[:1]})
    with pytest.raises(
        ConfigError, match=rf"started differently: source .*{FILE} was a different file"
    ):
        SiddSubmission(tmp_path, tmp_path / "out", resume=True).run(counting())


@pytest.fixture
def copy(dnd_source, tmp_path):
    """A copy of the source, to be spoiled."""
    folder = tmp_path / "dnd2017"
    shutil.copytree(dnd_source, folder)
    return folder


@pytest.mark.parametrize(
    ("rounding", "variant", "files"),
    [
        (
            "none",
            "out_denoise_srgb_identity",
            ["0001_02", "0002_20", "bundled/0001", "bundled/0002"],
        ),
        ("round", "out_test_DND_identity_addcon0.5_floor", ["0002_20", "bundled/0001"]),
    ],
)
def test_golden_dnd_submission(
    golden, dnd_source, tmp_path, counting, assert_same_mat, capsys, rounding, variant, files
):
    paths = DndSubmission(dnd_source, tmp_path, rounding=rounding).run(counting())
    assert paths == [tmp_path / "bundled"]
    assert sorted(path.name for path in paths[0].iterdir()) == ["0001.mat", "0002.mat"]
    assert len([*(tmp_path / "crops").iterdir()]) == 40
    for file in files:
        where = tmp_path if "bundled" in file else tmp_path / "crops"
        expected = golden(f"submission_and_metric/dnd/{variant}/{file}.mat")
        assert_same_mat(where / f"{file}.mat", expected)
    output = capsys.readouterr()
    assert "40 crops denoised" in output.out and str(paths[0]) in output.out
    assert "warning: the source has 2 pictures with 40 boxes, one of them 16 × 12" in output.err
    assert not list(tmp_path.rglob(".*"))


def test_floor(dnd_source, tmp_path, counting):
    DndSubmission(dnd_source, tmp_path, rounding="floor").run(lambda x: np.full_like(x, 0.5))
    crop = scipy.io.loadmat(tmp_path / "crops" / "0001_01.mat")["Idenoised_crop"]
    assert crop.dtype == np.float32 and (crop == np.float32(127) / np.float32(255)).all()


def test_the_folder_or_the_one_around_it(copy, tmp_path):
    inside, around = DndSubmission(copy, tmp_path / "a"), DndSubmission(copy.parent, tmp_path / "b")
    np.testing.assert_array_equal(inside.read("0002_07"), around.read("0002_07"))


def test_boxes_need_not_be_alike(copy, tmp_path, counting):
    with h5py.File(copy / "info.mat", "r+") as file:
        references = file["info/boundingboxes"]
        file["fewer"] = file[references[0, 1]][:, :3] - [[0], [0], [1], [0]]
        references[0, 1] = file["fewer"].ref
    DndSubmission(copy, tmp_path / "out").run(counting())
    for image, number, height in (("0001", 20, 16), ("0002", 3, 15)):
        cells = scipy.io.loadmat(tmp_path / "out" / "bundled" / f"{image}.mat")["Idenoised"]
        assert cells.shape == (1, number)
        assert {cell.shape for cell in cells[0]} == {(height, 12, 3)}


def test_unknown_rounding_is_refused(dnd_source, tmp_path):
    with pytest.raises(ConfigError, match=r"rounding must be one of none, round, floor.*'ceil'"):
        DndSubmission(dnd_source, tmp_path, rounding="ceil")


def test_another_rounding_is_refused_on_resume(dnd_source, tmp_path, counting):
    DndSubmission(dnd_source, tmp_path).run(counting())
    with pytest.raises(ConfigError, match=r"started differently: rounding none \(now round\)"):
        DndSubmission(dnd_source, tmp_path, rounding="round", resume=True).run(counting())


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(DataError, match=r"no info\.mat in .*/dnd_2017 or .*/dnd2017\. Download"):
        DndSubmission(tmp_path, tmp_path / "out")


def test_missing_pictures_are_said(copy, tmp_path):
    (copy / "images_srgb" / "0002.mat").unlink()
    with pytest.raises(DataError, match=r"1 of DND's 2 pictures .*0002\.mat\. Download.*--input"):
        DndSubmission(copy, tmp_path / "out")


@pytest.mark.parametrize("file", ["info.mat", "images_srgb/0002.mat"])
@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"no HDF5"])
def test_damaged_files_are_said(copy, tmp_path, file, spoil):
    path = copy / file
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{file} cannot be read and .*damaged.* Download"):
        DndSubmission(copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("corner", "value", "reason"),
    [
        (0, 0, "box 5, rows 0 to 55 and"),
        (1, 0, "columns 0 to"),
        (2, 57, "to 57 and .* picture of 56 rows and 72 columns"),
        (3, 73, "to 73, is not inside"),
        (2, 1, "box 5, rows 40 to 1 "),
        (2, 41.5, "whole numbers"),
        (3, np.nan, "whole numbers"),
    ],
)
def test_boxes_outside_the_picture_are_said(copy, tmp_path, corner, value, reason):
    with h5py.File(copy / "info.mat", "r+") as file:
        file[file["info/boundingboxes"][0, 0]][corner, 4] = value
    with pytest.raises(DataError, match=reason):
        DndSubmission(copy, tmp_path / "out")


def test_another_kind_of_picture_is_refused(copy, tmp_path):
    with h5py.File(copy / "images_srgb" / "0001.mat", "r+") as file:
        del file["InoisySRGB"]
        file["InoisySRGB"] = np.zeros((72, 56), np.float32)
    with pytest.raises(DataError, match=r"0001\.mat holds .* \(72, 56\) .*\(3, width, height\)\."):
        DndSubmission(copy, tmp_path / "out")


def test_pixels_damaged_are_said_when_they_are_read(copy, tmp_path, counting):
    path = copy / "images_srgb" / "0002.mat"
    with h5py.File(path) as file:
        chunk = file["InoisySRGB"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0002\.mat cannot be read"):
        DndSubmission(copy, tmp_path / "out").run(counting())
    assert len([*(tmp_path / "out" / "crops").iterdir()]) >= 20
    assert not (tmp_path / "out" / "bundled").exists()
