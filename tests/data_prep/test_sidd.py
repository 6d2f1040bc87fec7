import numpy as np
import pytest
from PIL import Image

from cbsn.errors import DataError
from data_prep import sidd


def test_finds_the_noisy_pictures_only(tmp_path):
    scene = tmp_path / "SIDD_Medium_Srgb" / "Data" / "0001_001_S6"
    scene.mkdir(parents=True)
    for name in ("0001_NOISY_SRGB_011.PNG", "0001_GT_SRGB_011.PNG", "0001_noisy_srgb_010.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(scene / name)
    (scene / "NOISY.txt").write_text("no picture")
    raw = sidd.find(tmp_path)
    assert [raw.name(path) for path in raw.files] == [
        "0001_001_S6/0001_NOISY_SRGB_011.PNG",
        "0001_001_S6/0001_noisy_srgb_010.png",
    ]
    assert (raw.kind, raw.dtype, raw.offset) == ("SIDD", "uint8", 10)
    assert raw.read(raw.files[0])[0].shape == (4, 4, 3)


def test_says_where_it_looked(tmp_path):
    with pytest.raises(DataError, match=r"SIDD_Medium_Srgb/Data/\*/\*NOISY\*\.PNG.*--source"):
        sidd.find(tmp_path)
