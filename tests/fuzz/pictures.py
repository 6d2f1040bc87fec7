"""What is done with picture files that may be damaged, and what must come of it."""

import contextlib
import io
import random
from pathlib import Path

import numpy as np

from cbsn.errors import DataError, ImageError
from cbsn.images.finding import SUFFIX_OF_FORMAT, find_images
from cbsn.images.image_files import read_header, read_picture, write_picture
from cbsn.value_range import ROUNDING_ERROR
from data_prep.prepare import prepare
from tests.fuzz.mutate import cut_off, cut_off_and_filled, damaged
from tests.fuzz.picture_files import picture_files

_UNMARKED = ("jpeg 2000", "jpeg xl")


class Pictures:
    """Reading a picture file, and writing what was read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = picture_files()
        self.contents = [*self.files.values()]
        self.pixels = {}
        for name, content in self.files.items():
            path = folder / "sample"
            path.write_bytes(content)
            with contextlib.suppress(ImageError):
                self.pixels[name] = read_picture(path).pixels
        (folder / "sample").unlink()

    def __call__(self, chance: random.Random) -> str:
        name = chance.choice([*self.files])
        content = self.files[name]
        what = chance.random()
        if what < 0.05:
            damage = cut_off
        elif what < 0.08 and name in self.pixels and _shows_its_end(name):
            damage = cut_off_and_filled
        else:
            damage = None
        content = damage(chance, content) if damage else damaged(chance, content, self.contents)
        path = self.folder / f"picture{chance.choice(('.png', '.tif', '.jpg'))}"
        path.write_bytes(content)
        assert find_images(self.folder) == [path]
        claimed = read_header(path).pixel_bytes
        try:
            picture = read_picture(path)
        except ImageError as error:
            assert str(error).startswith(f"{path}: "), error
            return "ImageError"
        if damage:
            np.testing.assert_array_equal(
                picture.pixels, self.pixels.get(name), f"{name}: a part is taken for the whole"
            )
        check(picture)
        assert picture.pixels.nbytes / 4 <= claimed <= picture.pixels.nbytes * 4, (name, claimed)
        for format in chance.sample(("PNG", "TIFF", "WEBP", "BMP", "JPEG"), 2):
            self._write(picture, format)
        return "read"

    def _write(self, picture, format):
        path = self.folder / f"out{SUFFIX_OF_FORMAT[format]}"
        before = picture.pixels.copy()
        try:
            write_picture(path, picture)
        except ImageError:
            assert not path.exists()
            return
        np.testing.assert_array_equal(picture.pixels, before, "writing changed the picture")
        back = read_picture(path)
        check(back)
        path.unlink()
        known = picture.value_range
        if known and known.source == "file" and format != "TIFF":
            return  # the others cannot say what white is
        if format == "TIFF" or (format == "PNG" and picture.pixels.dtype != np.float32):
            assert back.pixels.dtype == picture.pixels.dtype
            if picture.pixels.dtype == np.float32:
                np.testing.assert_allclose(back.pixels, picture.pixels, atol=1e-4)
            else:
                np.testing.assert_array_equal(back.pixels, picture.pixels)


def _shows_its_end(name):
    """Whether the kind of file has a mark at its end, or checksums."""
    return name.startswith(("png", "jpeg", "mpo")) and not name.startswith(_UNMARKED)


def check(picture):
    """Checks that a picture is as `Picture` says."""
    pixels = picture.pixels
    assert pixels.ndim == 3 and pixels.size and 1 <= pixels.shape[-1] <= 4, pixels.shape
    assert pixels.dtype in (np.uint8, np.uint16, np.float32), pixels.dtype
    assert pixels.dtype.isnative and pixels.flags.writeable
    assert np.isfinite(pixels).all(), "pixels are not finite"
    if pixels.dtype == np.float32:
        low, high = picture.color.min(), picture.color.max()
        assert low >= -ROUNDING_ERROR and high <= 1 + ROUNDING_ERROR, (low, high)
        if picture.alpha is not None:
            low, high = picture.alpha.min(), picture.alpha.max()
            assert low >= -ROUNDING_ERROR and high <= 1 + ROUNDING_ERROR, (low, high)
    for field in (picture.icc_profile, picture.exif, picture.xmp):
        assert field is None or (isinstance(field, bytes) and field), field
    if picture.resolution is not None:
        assert all(0 < each < np.inf for each in picture.resolution), picture.resolution


class Preparations:
    """Preparing a folder with one good file and some that may be damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.contents = [*picture_files().values()]
        self.good = picture_files()["png rgb"]

    def __call__(self, chance: random.Random) -> str:
        source, out = self.folder / "pictures", self.folder / "out"
        source.mkdir()
        (source / "good.png").write_bytes(self.good)
        for number in range(chance.randint(1, 4)):
            content = damaged(chance, chance.choice(self.contents), self.contents)
            (source / f"{number}.tif").write_bytes(content)
        errors = {}
        dtypes = set()
        for path in sorted(source.iterdir()):
            try:
                dtypes.add(read_picture(path).pixels.dtype)
            except ImageError as error:
                errors[path.name] = str(error)
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                report = prepare(source, out=out, patch_size=8, stride=8)
            except DataError as error:  # what was damaged may have become a stack
                assert "There are stacks" in str(error), error
                return "stacks among pictures refused"
        failed = {Path(failure.path).name for failure in report.failed}
        # Where patches are of 8 bits, a picture of more is refused, too.
        assert {*errors} <= failed and "good.png" not in failed, (errors, failed)
        hidden = [each.name for each in out.iterdir() if each.name.startswith(".")]
        assert {*hidden} <= {".preparing.lock", ".in_use.lock"}, hidden
        return f"prepared, {'some' if failed else 'none'} refused"
