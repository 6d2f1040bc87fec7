import collections
import gc
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy.ndimage import median_filter

from cbsn.errors import CbsnWarning, ConfigError, DataError, ImageError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Header, Picture
from cbsn.inference import folder
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_each, denoise_files, plan_files
from cbsn.inference.forecast import Forecast
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import plan_uncertainty
from cbsn.recipes import customised

INFER = Path(__file__).resolve().parents[2] / "infer.py"
WAIT = 240  # seconds until a test fails that waits for what does not happen


class Inverter:
    """Stands in for a denoiser."""

    choices = "Inverts."
    scaling = None
    repaired = 0

    def check_takes_pictures(self, what):
        """It does."""

    def prepare(self, pixels):
        assert pixels >= 0

    def __call__(self, image, on_tile, *, in_place, white):
        assert in_place and image.flags.writeable
        on_tile(1.0)
        if image.shape[0] == 13:
            raise MemoryError
        if image.shape[0] == 14:
            raise KeyError("a bug")
        return np.subtract(np.iinfo(image.dtype).max, image, out=image)


class Smoother(Inverter):
    """Removes all texture."""

    def __call__(self, image, on_tile, *, in_place, white):
        image[...] = median_filter(image, (5, 5, 1))
        return image


def save(path, height=9, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(np.full((height, 8, 3), 7, dtype), "PNG", b"profile"))


def denoise_all(denoiser, image_paths, save_path, format="auto"):
    return denoise_files(denoiser, plan_files(image_paths, save_path, format=format), save_path)


def test_the_good_ones_are_done_and_the_bad_ones_named(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "new" / "out"
    save(source / "good.png")
    save(source / "last.png")
    save(source / "memory.png", height=13)
    save(source / "bug.png", height=14)
    (source / "broken.png").write_bytes((source / "good.png").read_bytes()[:50])
    assert denoise_all(Inverter(), [source], target) == 1
    assert sorted(p.name for p in target.iterdir()) == ["good.png", "last.png"]
    result = read_picture(target / "good.png")
    assert (result.pixels == 248).all() and result.icc_profile == b"profile"
    output, errors = capsys.readouterr()
    assert "2 of 5 pictures denoised" in output
    failed = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3
    assert "broken.png" in failed[0]
    assert "bug.png: KeyError: 'a bug'" in failed[1] and "Traceback" in errors
    assert "memory.png: not enough memory" in failed[2]


def test_pictures_that_lose_more_than_their_noise_are_named(tmp_path, capsys):
    sharp = skimage.data.coffee()[:200, :300]
    smooth = np.full_like(sharp, 128)
    noisy = smooth + np.random.default_rng(0).integers(-9, 10, sharp.shape).astype(np.uint8)
    pictures = {"sharp": sharp, "smooth": smooth, "noisy": noisy, "less": sharp // 2}
    pictures["alpha"] = np.dstack([noisy, noisy[..., 0]])
    for name, pixels in pictures.items():
        write_picture(tmp_path / f"{name}.png", Picture(pixels, "PNG"))
    assert denoise_all(Smoother(), [tmp_path / "*.png"], tmp_path / "out") == 0
    (note,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("note: "))
    # Of several the one that lost most is the example.
    assert re.match(
        r"note: more than the noise was removed from 2 pictures, such as .*sharp\.png "
        r"\(removed [0-9.]+ levels, where the noise is about [0-9.]+\): .*--strength 0\.5",
        note,
    )
    assert denoise_all(Smoother(), [tmp_path / "sharp.png"], tmp_path / "out") == 0
    output, errors = capsys.readouterr()
    assert "more than the noise was removed from 1 picture, " in errors
    assert "1 of 1 picture denoised" in output
    fine = [tmp_path / f"{name}.png" for name in ("smooth", "noisy", "alpha")]
    assert denoise_all(Smoother(), fine, tmp_path / "out") == 0
    assert "note: " not in capsys.readouterr().err


def test_what_is_lost_is_said(tmp_path, capsys):
    save(tmp_path / "deep.png", dtype=np.uint16)
    assert denoise_all(Inverter(), [tmp_path / "deep.png"], tmp_path / "out", format="webp") == 0
    assert "deep.webp: WEBP holds 8 bits" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_does_not_stop_the_others(tmp_path, capsys):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    assert denoise_all(Inverter(), [tmp_path / "in"], tmp_path / "out") == 1
    assert "b.png: cannot be written as PNG (Is a directory)" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    assert (read_picture(tmp_path / "out" / "c.png").pixels == 248).all()


def test_no_uncertainty_is_left_of_a_result_that_cannot_be_written(tmp_path, capsys):
    """A JPEG file has at most 65,535 columns."""
    recipe = customised("distill", filters=2, depth=1)
    denoiser = Denoiser(recipe, recipe.build_network(), DenoiseOptions(engine="tensorflow"))
    wide = np.random.default_rng(0).integers(0, 99, (1, 66_000, 1)).astype("uint8")
    write_picture(tmp_path / "wide.png", Picture(wide, ""))
    write_picture(tmp_path / "good.png", Picture(wide[:, :64], ""))
    outputs = plan_files([tmp_path / "*.png"], tmp_path / "out", format="jpeg")
    uncertainties = plan_uncertainty(outputs)
    assert denoise_files(denoiser, outputs, tmp_path / "out", uncertainties=uncertainties) == 1
    assert "1 of 2 pictures denoised" in capsys.readouterr().out
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["good.jpg", "good.uncertainty.tif"]


def test_a_model_of_volumes_takes_no_pictures(volume_model, tmp_path):
    """Which is said before anything is done."""
    Image.new("L", (45, 30)).save(tmp_path / "a.png")
    outputs = plan_files([tmp_path / "a.png"], tmp_path / "out")
    with pytest.raises(ImageError, match=r"a\.png is a picture.*--axes ZYX"):
        denoise_files(Denoiser(*volume_model), outputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_done_without_pictures_or_a_folder(tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        denoise_all(Inverter(), [tmp_path / "*.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="cannot be created"):
        plan_files([tmp_path / "a.png"], tmp_path / "a.png" / "out")
    with pytest.raises(ConfigError, match="overwrite"):
        plan_files([tmp_path], tmp_path)
    (tmp_path / "a.webp").touch()
    with pytest.raises(ConfigError, match=r"a\.webp is there already"):
        plan_files([tmp_path / "a.png"], tmp_path, format="webp")
    (tmp_path / "a.webp").unlink()
    with pytest.raises(ConfigError, match="--white 0"):
        plan_files([tmp_path], tmp_path / "out", white=0)
    assert [*tmp_path.iterdir()] == [tmp_path / "a.png"]


NAMES = (
    *(
        "a[1].png",
        "b *.png",
        "what?.png",
        "na\u00efve \u5199\u771f \U0001f4f7.png",
        "nai\u0308ve.png",
    ),
    *("'single' \"double\".png", "new\nline.png", "-rf.png", "--out.png", "dots...png", " .png"),
    *("$HOME.png", "100%.png", "a\\b.png", "~.png"),
)


@pytest.mark.parametrize("name", [*NAMES, "[0-9]", "folder.", "-", "sp ace"])
def test_any_name_is_kept(tmp_path, monkeypatch, name):
    """As a file, a folder, a glob and part of a tree."""
    monkeypatch.chdir(tmp_path)
    for each in NAMES:
        save(Path("in", name, each))
    given = {
        "file": [Path("in", name, each) for each in NAMES],
        "folder": [Path("in", name)],
        "glob": [Path("in", name, "*.png")],
        "tree": [Path("in")],
    }
    for kind, paths in given.items():
        out = Path("out", kind, name)
        outputs = plan_files(paths, out, recursive=kind == "tree")
        assert denoise_files(Inverter(), outputs, out) == 0
        below = out / name if kind == "tree" else out
        assert {path.name for path in below.iterdir()} == {*NAMES}
        assert (read_picture(below / NAMES[0]).pixels == 248).all()


def test_a_tree_is_kept_and_results_are_not_denoised_again(tmp_path):
    photos = tmp_path / "photos"
    names = ["a.png", "2024/a.png", "2024/may/b.png"]
    for name in names:
        save(photos / name)
    save(photos / ".hidden" / "c.png")
    for out in (tmp_path / "out", photos / "denoised", photos / "2024" / "out"):
        for _ in range(2):
            outputs = plan_files([photos], out, recursive=True)
            assert denoise_files(Inverter(), outputs, out) == 0
            found = {str(path.relative_to(out)) for path in out.rglob("*.png")}
            assert found == {*names}
        shutil.rmtree(out)
    outputs = plan_files([f"{photos}/**/*.png"], photos / "denoised")
    assert len(outputs) == 3
    # Without sub-folders, results of an earlier run among the pictures do not matter.
    denoise_files(Inverter(), outputs, photos / "denoised")
    assert [*plan_files([photos], tmp_path / "out")] == [photos / "a.png"]


def test_the_trees_of_several_folders_stay_apart(tmp_path):
    for name in ("x/photos/2024/a.png", "x/other/b.png", "x/c.png", "x/d.png"):
        save(tmp_path / name)
    given = [tmp_path / "x" / name for name in ("photos", "other", "c.png", "d.*")]
    outputs = plan_files(given, tmp_path / "out", recursive=True)
    targets = sorted(str(each.relative_to(tmp_path / "out")) for each in outputs.values())
    assert targets == ["c.png", "d.png", "other/b.png", "photos/2024/a.png"]


def test_jpeg_stays_jpeg_of_the_quality_asked_for(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    source = tmp_path / "in" / "photo.JPG"
    source.parent.mkdir()
    write_picture(source, Picture(noise, "JPEG", b"profile"), jpeg_quality=100)
    save(tmp_path / "in" / "a.png")
    sizes = {}
    for quality in (1, 95, 100):
        out = tmp_path / str(quality)
        outputs = plan_files([tmp_path / "in"], out, format="same", jpeg_quality=quality)
        assert denoise_files(Inverter(), outputs, out, jpeg_quality=quality) == 0
        assert f"JPEG is written at quality {quality}; --jpeg_quality" in capsys.readouterr().out
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "photo.JPG"]
        sizes[quality] = (out / "photo.JPG").stat().st_size
        assert read_picture(out / "photo.JPG").format == "JPEG"
    assert sizes[1] < sizes[95] < sizes[100]
    outputs = plan_files([tmp_path / "in"], tmp_path / "out")
    denoise_files(Inverter(), outputs, tmp_path / "out")
    assert "JPEG" not in capsys.readouterr().out


@pytest.mark.parametrize("quality", [0, 101, -1, 90.5, "95", None])
def test_a_jpeg_quality_that_there_is_not_is_refused(tmp_path, quality):
    save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=rf"integer from 1 to 100.*--jpeg_quality {quality}"):
        plan_files([tmp_path / "a.png"], tmp_path / "out", jpeg_quality=quality)
    with pytest.raises(ConfigError, match="--jpeg_quality"):
        write_picture(tmp_path / "b.jpg", read_picture(tmp_path / "a.png"), jpeg_quality=quality)
    with pytest.raises(ConfigError, match="--jpeg_quality"):
        denoise_each(lambda *_: 1 / 0, {}, tmp_path / "out", jpeg_quality=quality)
    assert [*tmp_path.iterdir()] == [tmp_path / "a.png"]


def test_reading_ahead_changes_no_result_and_no_message(tmp_path, capsys, monkeypatch):
    for number in range(9):
        dtype = np.uint16 if number % 3 == 0 else np.uint8
        save(tmp_path / "in" / f"{number}.png", height=9 + number, dtype=dtype)  # 13 and 14 fail
    (tmp_path / "in" / "2.png").write_bytes(b"broken")
    runs = []
    for budget in (0, 3 * 8 * 25, 2**29):
        monkeypatch.setattr(folder, "BUDGET", budget)
        assert denoise_all(Inverter(), [tmp_path / "in"], tmp_path / "out", format="webp") == 1
        output, errors = capsys.readouterr()
        names = [str(tmp_path), "failed: "]
        messages = [line for line in errors.splitlines() if line.startswith(tuple(names))]
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        runs.append((output, messages, files))
    assert runs[0] == runs[1] == runs[2]
    assert [name[0] for name in sorted(runs[0][2])] == list("013678")
    assert [message.split(":")[0][-6:] for message in runs[0][1]].count("0.webp") == 1
    assert sum(message.startswith("failed: ") for message in runs[0][1]) == 3


@pytest.fixture
def denoise_numbers(monkeypatch, tmp_path):
    """Runs `denoise_each` with other functions in place of those that read and write files.

    The pictures are numbers, which each function gets; `write` also gets a function that says
    whether to give up. Each time one is read, it must find room.
    """

    def run(sizes, *, read=lambda number: None, denoise=lambda number: None, write):
        alive = weakref.WeakValueDictionary()

        def read_number(source, white):
            number = int(source.name)
            together = [sizes[each] for each in (*alive, number)]
            assert len(together) == 1 or (len(together) <= 3 and sum(together) <= folder.BUDGET)
            alive[number] = picture = Picture(np.full((1, 1, 1), number, np.uint8), "PNG")
            read(number)
            return picture

        def denoise_number(picture, on_share):
            denoise(int(picture.pixels.item()))
            return picture

        def write_number(target, picture, jpeg_quality, cancelled):
            assert picture.pixels == int(target.name)
            write(int(target.name), cancelled)
            return []

        monkeypatch.setattr(
            folder, "read_header", lambda source: Header(0, 0, sizes[int(source.name)])
        )
        monkeypatch.setattr(folder, "read_picture", read_number)
        monkeypatch.setattr(folder, "write_picture", write_number)
        outputs = {Path(f"{number}"): tmp_path / f"{number}" for number in range(len(sizes))}
        return denoise_each(denoise_number, outputs, tmp_path)

    return run


STAGES = ("read", "denoise", "write")


@pytest.mark.parametrize("seed", range(12))
def test_order_and_failures_are_those_of_one_by_one(denoise_numbers, monkeypatch, capsys, seed):
    monkeypatch.setattr(folder, "BUDGET", 10)
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 12))
    sizes = random.choice([0, 1, 3, 5, 9, 11, 40], count).tolist()
    fails_at = random.choice([*STAGES, "", ""], count).tolist()
    orders = collections.defaultdict(list)

    def stage(name, number, *_):
        orders[name].append(number)
        time.sleep(random.choice([0, 0.0005, 0.002]))
        assert orders[name][-1] == number  # each stage has one at a time
        if fails_at[number] == name:
            raise ImageError(f"{number}: {name}")

    stages = {name: partial(stage, name) for name in STAGES}
    gc.disable()  # what is freed must not wait for it
    try:
        status = denoise_numbers(sizes, **stages)
    finally:
        gc.enable()
    failed = [number for number, name in enumerate(fails_at) if name]
    assert status == bool(failed)
    output, errors = capsys.readouterr()
    assert f"{count - len(failed)} of {count} picture" in output
    said = [line for line in errors.splitlines() if line.startswith("failed: ")]
    # What denoises does not know the name of the file.
    names = {number: f"{number}: " if fails_at[number] == "denoise" else "" for number in failed}
    assert said == [f"failed: {names[each]}{each}: {fails_at[each]}" for each in failed]
    assert orders["read"] == [*range(count)]
    for name in STAGES[1:]:
        assert orders[name] == sorted(orders[name])


def test_three_are_at_work_if_they_have_room(denoise_numbers, monkeypatch):
    monkeypatch.setattr(folder, "BUDGET", 9)
    begun = collections.defaultdict(threading.Event)

    def meet(*others):
        for other in others:
            assert begun[other].wait(WAIT)

    def read(number):
        begun["read", number].set()

    def denoise(number):
        begun["denoise", number].set()
        if number < 4:
            meet(("read", number + 1))
        if number > 0:
            meet(("write", number - 1))

    def write(number, _):
        begun["write", number].set()
        if number < 3:
            meet(("denoise", number + 1), ("read", number + 2))

    assert denoise_numbers([3] * 5, read=read, denoise=denoise, write=write) == 0


def test_ctrl_c_tells_the_writing_to_give_up_and_begins_nothing(denoise_numbers, capsys):
    begun = threading.Event()
    reads, gave_up = [], []

    def denoise(number):
        if number == 1:
            assert begun.wait(WAIT)
            raise KeyboardInterrupt

    def write(number, cancelled):
        begun.set()
        end = time.monotonic() + WAIT
        while not cancelled() and time.monotonic() < end:
            time.sleep(0.001)
        gave_up.append(cancelled())

    with pytest.raises(KeyboardInterrupt):
        denoise_numbers([1] * 9, read=reads.append, denoise=denoise, write=write)
    assert gave_up == [True]
    assert reads in ([0, 1], [0, 1, 2])
    assert "denoised" not in capsys.readouterr().out


def test_a_terminal_that_goes_away_ends_it(denoise_numbers, monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError

    reads = []
    monkeypatch.setattr(folder.tqdm, "update", fail)
    with pytest.raises(BrokenPipeError):
        denoise_numbers([2**29] * 9, read=reads.append, write=lambda *_: None)
    assert len(reads) < 9


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_only(tmp_path, golden, random):
    """At any moment: while one picture is read, another denoised, and another written."""
    (tmp_path / "in").mkdir()
    picture = Picture(random.integers(256, size=(400, 500, 3), dtype=np.uint8), "TIFF")
    for number in range(60):
        write_picture(tmp_path / "in" / f"{number:02d}.tif", picture)
    flags = ["--modelpath", golden("small/CBSN_small.ckpt"), "--imagepath", "in", "--savepath=out"]
    process = subprocess.Popen(
        [sys.executable, INFER, *flags], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("out/[0-9]*.tif")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    results = list((tmp_path / "out").iterdir())
    assert 0 < len(results) < 60
    for result in results:
        assert result.suffix == ".tif" and not result.name.startswith(".")
        assert read_picture(result).pixels.shape == (400, 500, 3)


@pytest.mark.parametrize("options", [{"tile": 20}, {"tile": 0, "self_ensemble": True}])
def test_the_forecast_counts_all_pixels(tmp_path, monkeypatch, options):
    """Whatever is done to each; those of a picture that cannot be read are never done."""
    forecasts = []

    class Watched(Forecast):
        def __init__(self, *arguments):
            self.arguments, self.counts = arguments, []
            forecasts.append(self)

        def count(self, pixels):
            self.counts.append(pixels)

    monkeypatch.setattr(folder, "Forecast", Watched)
    Image.new("L", (45, 30)).save(tmp_path / "a.png")
    Image.effect_noise((50, 20), 50).convert("RGB").save(tmp_path / "b.jpg")
    content = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "c.jpg").write_bytes(content[:700])
    outputs = plan_files([tmp_path / "*.*"], tmp_path / "out")
    recipe = customised("distill", filters=2, depth=1)
    denoiser = Denoiser(recipe, recipe.build_network(), DenoiseOptions(**options))
    assert denoise_files(denoiser, outputs, tmp_path / "out", fast_share=0.2) == 1
    (forecast,) = forecasts
    assert forecast.arguments == (3, 45 * 30 + 2 * 50 * 20, 0.2)
    assert sum(forecast.counts) == pytest.approx(45 * 30 + 50 * 20)
    assert len(forecast.counts) >= (6 if options["tile"] else 16)


def test_pictures_in_sub_folders_are_not_omitted_in_silence(tmp_path):
    names = ("a.png", "2024/b.jpg", "2024/c.tif", "denoised/a.png", ".hidden/d.png", "text/e.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("2024")  # which --recursive does not follow
    with pytest.warns(CbsnWarning, match="2 pictures in sub-folders omitted; --recursive"):
        plan_files([tmp_path], tmp_path / "denoised")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_files([tmp_path / "2024"], tmp_path / "denoised")
