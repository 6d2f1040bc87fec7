"""What is left of a submission that is killed."""

import h5py
import numpy as np
import pytest
import scipy.io

from cbsn.evaluation.submit.sidd import VARIABLE


def _few_blocks(folder, random):
    blocks = random.integers(256, size=(1, 3, 8, 8, 3), dtype=np.uint8)
    scipy.io.savemat(folder / f"{VARIABLE}.mat", {VARIABLE: blocks})


def _few_boxes(folder, random):
    (folder / "images_srgb").mkdir()
    with h5py.File(folder / "info.mat", "w") as info:
        info["boxes"] = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], float)
        references = [[info["boxes"].ref, info["boxes"].ref]]
        info.create_dataset("info/boundingboxes", data=references, dtype=h5py.ref_dtype)
    for number in (1, 2):
        with h5py.File(folder / "images_srgb" / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = random.random((3, 9, 9), dtype=np.float32)


@pytest.mark.parametrize(("kind", "write"), [("sidd", _few_blocks), ("dnd", _few_boxes)])
def test_killed_at_any_moment_it_ends_with_the_same_files(
    run_command, tmp_path, random, kind, write
):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source", random)
    run = run_command("tests/evaluation/submit/killed_everywhere.py", "source", kind)
    assert run.returncode == 0, run.stderr
    moments = run.stdout.splitlines()[-1].split()
    assert moments[0] == "moments:" and min(map(int, moments[1:])) > 10
