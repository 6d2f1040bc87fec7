import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from cbsn.evaluation.report.pictures import (
    HEAT,
    LONGEST,
    TILE,
    ReportPicture,
    data_uri,
    error_maps,
    find_places,
    residual_maps,
    shrunk,
    to_image,
    write_contact_sheet,
)


def _corners(places):
    return [(rows.start, columns.start) for rows, columns in places]


def test_the_largest_errors_are_found(random):
    clean = random.integers(0, 256, (200, 300, 3), "uint8")
    denoised = clean.copy()
    denoised[20:84, 200:264] ^= 16
    denoised[130:194, 10:74] ^= 32
    methods = {"first": denoised, "second": clean ^ 128}
    picture = ReportPicture("", clean, methods, clean, {})
    assert _corners(find_places(picture, 64, 2)) == [(130, 10), (20, 200)]


def test_structure_is_found_without_a_clean_picture(random):
    # Strong noise was taken away on the left, and weak structure on the right.
    removed = random.normal(0, [[[0.1]] * 80 + [[0.01]] * 80], (120, 160, 3))
    removed[48:72, 120:136] += 0.1
    picture = ReportPicture("", 0.5 + removed, {"first": np.full((120, 160, 3), 0.5)}, None, {})
    rows, columns = find_places(picture, 40, 1)[0]
    assert rows.start <= 48 < 72 <= rows.stop
    assert columns.start <= 120 < 136 <= columns.stop


@pytest.mark.parametrize("size", [16, 33])
def test_places_do_not_overlap(make_picture, size):
    picture = make_picture((100, 70))
    places = find_places(picture, size, 5)
    assert len(places) == 5
    for (rows, columns), (others, other_columns) in itertools.combinations(places, 2):
        apart = abs(rows.start - others.start), abs(columns.start - other_columns.start)
        assert max(apart) >= size
    for rows, columns in places:
        assert picture.noisy[rows, columns].shape[:2] == (size, size)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("size", "count"), [((1, 1), 1), ((8, 8), 1), ((100, 1), 1), ((320, 9), 3)]
)
def test_small_pictures_have_fewer_places(make_picture, size, count, clean):
    picture = make_picture(size, channels=1, clean=clean)
    places = find_places(picture, 64, 3)
    assert len(places) == count
    shape = picture.noisy[places[0]].shape
    assert shape == (min(64, size[0]), min(64, size[1]), 1)


def test_a_perfect_picture_has_places_too(make_picture):
    clean = make_picture().clean
    assert len(find_places(ReportPicture("", clean, {"first": clean}, clean, {}), 32, 3)) == 3


@pytest.mark.parametrize(
    ("pixels", "shown"),
    [
        (np.array([0, 128, 255], "uint8"), [0, 128, 255]),
        (np.array([0, 32768, 65535], "uint16"), [0, 128, 255]),
        (np.array([-0.5, 0.5, 1.5], "float32"), [0, 128, 255]),
        (np.array([np.nan, np.inf, -np.inf], "float16"), [0, 255, 0]),
    ],
)
def test_every_dtype_is_shown_in_8_bits(pixels, shown):
    assert np.asarray(to_image(pixels.reshape(1, 3, 1))).ravel().tolist() == shown


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="int64"):
        to_image(np.zeros((2, 2, 1), int))


def test_large_images_are_reduced():
    image = to_image(np.zeros((3, 2 * LONGEST, 1), "uint8"))
    assert shrunk(image).size == (LONGEST, 2)
    assert shrunk(to_image(np.zeros((5000, 1, 3), "uint8"))).size == (1, LONGEST)
    small = to_image(np.zeros((LONGEST, 7, 3), "uint8"))
    assert shrunk(small) is small


def test_a_data_uri_holds_the_pixels(random):
    pixels = random.integers(0, 256, (5, 7, 3), "uint8")
    kind, _, data = data_uri(to_image(pixels)).partition(",")
    assert kind == "data:image/webp;base64"
    np.testing.assert_array_equal(Image.open(io.BytesIO(base64.b64decode(data))), pixels)


def _picture(noisy, clean, **denoised):
    return ReportPicture("", noisy, denoised, clean, {})


def _color(image, x, y):
    return "#{:02x}{:02x}{:02x}".format(*image.convert("RGB").getpixel((x, y)))


def test_errors_of_all_methods_have_one_scale():
    clean = np.full((10, 10, 3), 100, "uint8")
    near, far = clean + 10, clean.copy()
    far[:, 5:] += 50
    peak, maps = error_maps(_picture(clean, clean, near=near, far=far))
    assert peak == 50
    assert _color(maps["far"], 0, 0) == HEAT[0]
    assert _color(maps["far"], 9, 9) == HEAT[-1]
    # 10 of 50 is the second of the six colours, as far as the levels are as fine.
    color = np.array(maps["near"].convert("RGB").getpixel((0, 0)))
    assert np.abs(color - [0x3B, 0x0F, 0x70]).max() <= 4


@pytest.mark.parametrize(("error", "peak"), [(0, 5), (6, 10), (51, 75), (220, 255)])
def test_the_scale_fits_the_errors(error, peak):
    clean = np.zeros((8, 8, 1), "uint8")
    assert error_maps(_picture(clean, clean, m=clean + np.uint8(error)))[0] == peak


def test_errors_of_16_bits_are_in_levels_of_255():
    clean = np.zeros((8, 8, 1), "uint16")
    assert error_maps(_picture(clean, clean, m=clean + np.uint16(15 * 257)))[0] == 15


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_residuals_lie_around_middle_gray(dtype, channels):
    one = 255 if dtype == "uint8" else 1
    noisy = np.full((8, 8, channels), 0.4 * one).astype(dtype)
    denoised = noisy.copy()
    denoised[:4] = 0.5 * one
    gain, maps = residual_maps(_picture(noisy, None, m=denoised))
    assert gain == 4
    pixels = np.asarray(maps["m"].convert("RGB")).astype(int)
    assert np.abs(pixels[4:] - 128).max() <= 1
    assert np.abs(pixels[:4] - (128 - 4 * 25.5)).max() <= 5


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


def test_a_row_for_each_picture(sheet):
    first, second = (
        ReportPicture(name, _plain(RED), {"m": _plain(color)}, None, {})
        for name, color in (("x", GREEN), ("y", BLUE))
    )
    pixels = sheet(first, second)
    green, blue = _box(pixels, GREEN), _box(pixels, BLUE)
    assert green[0] + 40 < blue[0] and green[1:] == blue[1:]
    assert _box(pixels, RED)[2] == blue[0] + 40 - green[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300)])
def test_small_gray_and_deep_pictures_on_a_sheet(make_picture, sheet, size, dtype):
    pixels = sheet(make_picture(size, channels=1, dtype=dtype))
    assert pixels.shape[0] > 60 and (pixels != 255).any()


def test_long_labels_are_wrapped(sheet):
    def write(label):
        return sheet(ReportPicture("x", _plain(RED), {label: _plain(GREEN)}, None, {}))

    short, long = write("model"), write("cbsn (runs/one/best) " * 4 + "\n" + "x" * 100)
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0] + 40
    assert (long[:, -20:] == 255).all()
