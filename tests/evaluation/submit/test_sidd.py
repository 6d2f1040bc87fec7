import json
import os
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cbsn.errors import ConfigError, DataError
from cbsn.evaluation.submit.sidd import FILE, VARIABLE, SiddSubmission


def test_golden_submission(golden, sidd_source, tmp_path, counting, assert_same_mat, capsys):
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
    assert "is 2 × 32 × 8 × 8 × 3, and SIDD's is 40 × 32 × 256 × 256 × 3" in output.err
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
    with pytest.raises(ConfigError, match=f"--layout takes blocks, csv, kit.*'{layouts}'"):
        SiddSubmission(sidd_source, tmp_path, layouts=layouts)


@pytest.mark.parametrize("name", ["", "nowhere", f"nowhere/{FILE}"])
def test_a_missing_file_is_said(tmp_path, name):
    with pytest.raises(DataError, match=r"There is no file .*Download .*BenchmarkNoisy.*--source"):
        SiddSubmission(tmp_path / name, tmp_path / "out")


def test_a_file_cut_off_is_refused(sidd_source, tmp_path):
    (tmp_path / FILE).write_bytes(sidd_source.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"damaged.*Download .* --source"):
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
    with pytest.raises(ConfigError, match=rf"begun otherwise: source .*{FILE} was another file"):
        SiddSubmission(tmp_path, tmp_path / "out", resume=True).run(counting())
