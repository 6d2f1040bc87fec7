import pytest
from PIL import Image

from cbsn.inference.denoiser import Denoiser
from cbsn.inference.duration import say_duration
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import customised


@pytest.fixture
def make_denoiser():
    """A denoiser of 2 channels, whose network sees 20 pixels in each direction."""
    recipe = customised("distill", filters=2, depth=1)
    network = recipe.build_network()
    return lambda **options: Denoiser(recipe, network, DenoiseOptions(**options))


@pytest.fixture
def sources(tmp_path):
    """Two pictures of a megapixel each, one of which is cut off, and a file that is none."""
    Image.new("L", (1250, 800)).save(tmp_path / "gray.png")
    Image.new("RGB", (800, 1250)).save(tmp_path / "color.jpg")
    content = (tmp_path / "color.jpg").read_bytes()
    (tmp_path / "color.jpg").write_bytes(content[:700])
    (tmp_path / "text.png").write_text("no picture")
    return sorted(tmp_path.iterdir())


@pytest.fixture
def said(monkeypatch, capsys):
    """What `say_duration` says on a machine that takes some seconds for two megapixels."""

    def say(*arguments, seconds):
        monkeypatch.setattr(Denoiser, "seconds_per_pixel", lambda self: seconds / 2e6)
        say_duration(*arguments)
        return capsys.readouterr().out

    return say


def test_minutes_pictures_and_megapixels_are_said(make_denoiser, sources, said):
    denoiser = make_denoiser(tile=0)
    text = said(denoiser, sources, seconds=800)
    assert text == "About 13 minutes for 3 pictures of 2 megapixels.\n"
    text = said(denoiser, sources, 0.3, seconds=800)
    assert text.endswith(" of 2 megapixels; --quality fast takes about 4 minutes.\n")
    text = said(denoiser, sources, 0.3, seconds=100)
    assert text.endswith("; --quality fast takes less than a minute.\n")
    assert said(denoiser, sources[:1], seconds=130).startswith("About 1 minute for 1 pict")
    assert said(denoiser, sources, seconds=8000).startswith("About 2 hours for")
    assert said(denoiser, sources, 0.3, seconds=59) == ""


def test_little_is_not_even_measured(make_denoiser, tmp_path, monkeypatch):
    monkeypatch.setattr(Denoiser, "seconds_per_pixel", lambda self: 1 / 0)
    Image.new("L", (300, 400)).save(tmp_path / "a.png")
    sources = [tmp_path / "a.png"] * 8
    say_duration(make_denoiser(), sources)
    with pytest.raises(ZeroDivisionError):
        say_duration(make_denoiser(self_ensemble=True), sources[:2])


def test_eight_orientations_and_the_rims_of_tiles_take_their_time(make_denoiser, sources, said):
    once = said(make_denoiser(tile=0), sources, seconds=120)
    eight = said(make_denoiser(tile=0, self_ensemble=True), sources, seconds=120)
    tiles = said(make_denoiser(tile=20), sources, seconds=120)
    assert [each.split(" for")[0] for each in (once, eight)] == [
        "About 2 minutes",
        "About 16 minutes",
    ]
    assert int(tiles.split()[1]) > 2


def test_the_speed_is_measured_in_one_orientation(make_denoiser, sources, monkeypatch):
    seen = []

    def denoise(self, picture):
        seen.append((picture.shape, self.options.self_ensemble))

    monkeypatch.setattr(Denoiser, "__call__", denoise)
    denoiser = make_denoiser(self_ensemble=True)
    say_duration(denoiser, sources)
    assert {*seen} == {((side, side, 3), False) for side in (256, 512, 1024)}
    assert denoiser.options.self_ensemble
