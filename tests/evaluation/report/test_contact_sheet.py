import numpy as np
import pytest
from PIL import Image

from cbsn.evaluation.report.contact_sheet import TILE, write_contact_sheet
from cbsn.evaluation.report.pictures import ReportPicture


@pytest.fixture
def sheet(tmp_path):
    """Writes a sheet; returns its pixels."""

    def write(*pictures):
        write_contact_sheet(tmp_path / "sheet.png", pictures)
        assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
        image = Image.open(tmp_path / "sheet.png")
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)

    return write


def _box(pixels, color):
    """Top, left, height and width of a colour."""
    rows, columns = np.nonzero((pixels == color).all(axis=-1))
    top, left = rows.min(), columns.min()
    return top, left, rows.max() - top + 1, columns.max() - left + 1


def _plain(color, size=(40, 200)):
    return np.full((*size, 3), color, "uint8")


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_sides_stand_next_to_each_other(sheet):
    picture = ReportPicture("x", _plain(RED), {"m": _plain(GREEN)}, _plain(BLUE), {"m": "30 dB"})
    pixels = sheet(picture)
    boxes = [_box(pixels, color) for color in (RED, GREEN, BLUE)]
    assert {(top, height, width) for top, _, height, width in boxes} == {(boxes[0][0], 40, 200)}
    lefts = [left for _, left, _, _ in boxes]
    assert lefts[0] + 200 < lefts[1] and lefts[1] + 200 < lefts[2]
    margins = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    assert all((margin == 255).all() for margin in margins)


def test_large_pictures_are_cut_where_they_are_worst(sheet):
    clean = _plain((0, 0, 9), (700, 900))
    denoised = clean.copy()
    denoised[400:500, 600:650] = RED
    pixels = sheet(ReportPicture("x", clean, {"m": denoised}, clean, {}))
    assert _box(pixels, RED)[2:] == (100, 50)
    # Noisy and clean, and what lies between them.
    assert _box(pixels, (0, 0, 9))[2] == TILE
    assert pixels.shape[1] < 4 * TILE


def test_a_row_for_each_picture_and_a_gap_for_what_it_lacks(sheet):
    first = ReportPicture("x", _plain(RED), {"m": _plain(GREEN)}, None, {})
    second = ReportPicture("y", _plain(RED), {"n": _plain(BLUE)}, None, {})
    pixels = sheet(first, second)
    green, blue = _box(pixels, GREEN), _box(pixels, BLUE)
    assert green[0] + 40 < blue[0] and green[1] + 200 < blue[1]
    assert _box(pixels, RED)[2] == blue[0] + 40 - green[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300)])
def test_small_gray_and_deep_pictures(make_picture, sheet, size, dtype):
    pixels = sheet(make_picture(size, channels=1, dtype=dtype))
    assert pixels.shape[0] > 60 and (pixels != 255).any()


def test_long_labels_are_wrapped(sheet):
    def write(label):
        return sheet(ReportPicture("x", _plain(RED), {label: _plain(GREEN)}, None, {}))

    short, long = write("model"), write("cbsn (runs/one/best) " * 4 + "\n" + "x" * 100)
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0] + 40
    assert (long[:, -20:] == 255).all()


def test_no_pictures_make_no_sheet(tmp_path):
    with pytest.raises(ValueError, match="needs a picture"):
        write_contact_sheet(tmp_path / "sheet.png", [])
    assert not [*tmp_path.iterdir()]
