"""The page's requests, on a server that runs: what comes back is what `cbsn denoise` writes."""

import io
import os
import threading
import time
import urllib.parse
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from cbsn.app.work import Work
from cbsn.images.image_files import read_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files, plan_files
from cbsn.training import adaptation
from cbsn.training.adaptation import Adapted
from tests.app.conftest import EXACT, MODEL, PATIENCE, User, running


@pytest.fixture
def by_command(tmp_path):
    """Denoises files as `cbsn denoise` does; returns the results' bytes by name."""

    def denoise(*paths, format="auto", **options):
        out = tmp_path / "by command"
        outputs = plan_files([*paths], out, format=format)
        settings = {**vars(EXACT), **options}
        denoise_files(Denoiser.load(MODEL, type(EXACT)(**settings)), outputs, out)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    return denoise


def _download(user, id, **query):
    text = "&".join(f"{name}={value}" for name, value in query.items())
    status, headers, content = user.ask("GET", f"/api/pictures/{id}/result?{text}")
    assert status == 200, content
    return headers["Content-Disposition"], content


def _exif(orientation=6):
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "a camera"
    return exif.tobytes()[6:]


def _profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


PICTURES = {
    "photo.png": {"exif": _exif(), "icc_profile": _profile()},
    "photo.jpg": {"exif": _exif(3)},
    "photo.tif": {"resolution": (11811.0, 11811.0)},
    "photo.webp": {},
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "strength", [(1.0, ""), pytest.param((0.6, ""), marks=pytest.mark.slow), (0.3, 1.0), (0.0, "")]
)
def test_a_download_is_the_commands_file(user, save, by_command, name, strength):
    path = save(name, **PICTURES[name])
    id = user.upload(path)
    assert user.denoise(id)["state"] == "done"
    luma, color = strength
    disposition, content = _download(user, id, strength=luma, color_strength=color)
    options = {"strength": luma, "color_strength": None if color == "" else color}
    ((expected_name, expected),) = by_command(path, **options).items()
    assert f'filename="{expected_name}"' in disposition
    assert content == expected


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bit_depth_range_and_alpha_stay(user, save, by_command, noisy, dtype, channels):
    pixels = noisy.astype(np.float32) / 255
    pixels = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)[..., :channels]
    # 12 bits, and floats in units of their own.
    pixels = (pixels * 4095).astype(dtype)
    if channels == 4:
        pixels[..., 3] = 65535 if dtype == "uint16" else 1
        pixels[:9, :9, 3] = 0
    path = save("deep.tif", pixels)
    id = user.upload(path)
    user.denoise(id)
    _, content = _download(user, id, strength=0.5)
    assert content == by_command(path, strength=0.5)["deep.tif"]
    assert tifffile.imread(io.BytesIO(content)).dtype == dtype


def test_formats_and_names_are_those_of_the_command(user, save, by_command):
    first, second = save("same.png"), save("same.jpg")
    ids = [user.upload(first), user.upload(second)]
    for id in ids:
        user.denoise(id)
    for format in ("auto", "same", "jpeg", "tiff"):
        expected = by_command(first, second, format=format)
        for id in ids:
            disposition, content = _download(user, id, format=format)
            name = disposition.partition('filename="')[2].rstrip('"')
            assert content == expected[name]
        for path in (first.parent.parent / "by command").iterdir():
            path.unlink()


def test_a_strength_needs_no_network(user, save, monkeypatch):
    id = user.upload(save())
    user.denoise(id)

    def fail(*args, **options):
        raise AssertionError("it was denoised again")

    monkeypatch.setattr(Denoiser, "__call__", fail)
    contents = {_download(user, id, strength=strength)[1] for strength in (0, 0.2, 0.9, 1)}
    assert len(contents) == 4


def test_best_is_the_self_ensemble(user, save, by_command):
    path = save()
    id = user.upload(path)
    assert user.denoise(id, quality="best")["result"]["quality"] == "best"
    assert _download(user, id)[1] == by_command(path, self_ensemble=True)["photo.png"]


def test_what_is_as_wanted_is_not_denoised_again(user, save, monkeypatch):
    id = user.upload(save())
    number = user.denoise(id)["number"]
    assert user.denoise(id)["number"] == number
    assert user.denoise(id, quality="best")["number"] > number


def test_tiles_show_the_file(user, save):
    path = save("turned.png", exif=_exif())
    id = user.upload(path)
    picture = user.denoise(id)
    assert picture["size"] == [64, 80] and picture["levels"] == 1
    assert picture["views"] == ["noisy", "denoised"]
    _, content = _download(user, id)
    result = np.asarray(Image.open(io.BytesIO(content)))
    for view, expected in (("noisy", read_picture(path).pixels), ("denoised", result)):
        status, headers, tile = user.ask("GET", f"/api/pictures/{id}/tiles/{view}/0/0/0.png")
        assert status == 200 and headers["Content-Type"] == "image/png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(tile))), np.rot90(expected, 3))
    for wrong in ("noisy/1/0/0", "noisy/0/1/0", "uncertainty/0/0/0", "other/0/0/0"):
        assert user.ask("GET", f"/api/pictures/{id}/tiles/{wrong}.png")[0] == 404


def test_what_was_removed_is_shown_amplified(user, save):
    id = user.upload(save())
    user.denoise(id)

    def tile(view):
        content = user.ask("GET", f"/api/pictures/{id}/tiles/{view}")[2]
        return np.asarray(Image.open(io.BytesIO(content))).astype(int)

    noisy, denoised = tile("noisy/0/0/0.png"), tile("denoised/0/0/0.png")
    expected = (128 + 4 * (noisy - denoised)).clip(0, 255)
    assert np.array_equal(tile("removed/0/0/0.png?gain=4"), expected)
    status, answer = user.json("GET", f"/api/pictures/{id}/tiles/removed/0/0/0.png?gain=3")
    assert status == 400 and "1, 2, 4, 8, 16" in answer["error"]


def test_uncertainty_is_that_of_the_command(user, save, tmp_path):
    path = save()
    id = user.upload(path)
    picture = user.denoise(id, uncertainty=True)
    assert picture["views"] == ["noisy", "denoised", "uncertainty"] and picture["heat_peak"] >= 1
    status, headers, content = user.ask("GET", f"/api/pictures/{id}/uncertainty")
    assert status == 200 and 'filename="photo.uncertainty.tif"' in headers["Content-Disposition"]
    _, sigma = Denoiser.load(MODEL, EXACT).with_uncertainty(read_picture(path).pixels, white=255)
    assert np.array_equal(tifffile.imread(io.BytesIO(content)), sigma)
    user.denoise(id)
    status, answer = user.json("GET", f"/api/pictures/{id}/uncertainty")
    assert status == 404 and "tick its box" in answer["error"]


def test_the_noise_is_reported(user, save, random):
    pixels = np.full((256, 256, 3), 120.0) + random.normal(0, 12, (256, 256, 3))
    id = user.upload(save("flat.png", pixels.clip(0, 255).astype("uint8")))
    assert user.json("POST", f"/api/pictures/{id}/noise", {})[0] == 200
    user.wait()
    noise = user.picture(id)["noise"]
    assert "Noise of 1 picture" in noise["lines"][0] and noise["figure"]
    status, _, content = user.ask("GET", f"/api/pictures/{id}/noise.png")
    assert status == 200 and Image.open(io.BytesIO(content)).width > 500
    other = user.upload(save("small.png"))
    user.json("POST", f"/api/pictures/{other}/noise", {})
    user.wait()
    shown = user.picture(other)
    assert not shown["noise"]["figure"] and "flat" in shown["noise"]["lines"][0]
    assert shown["state"] == "new"  # that nothing is seen is no failure
    assert user.ask("GET", f"/api/pictures/{other}/noise.png")[0] == 404


def _bomb():
    file = io.BytesIO()
    Image.new("L", (30000, 20000)).save(file, "PNG")
    return file.getvalue()


def _stack():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((5, 32, 32), np.uint16))
    return file.getvalue()


BAD = {
    "script.png": (b"#!/bin/sh\nrm -rf /\n", "script.png"),
    "page.png": (b"<html><script>alert(1)</script></html>", "page.png"),
    "empty.png": (b"", "empty.png"),
    "bomb.png": (_bomb(), "decompression bomb"),
    "stack.tif": (_stack(), "stack"),
    "raw.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "raw.cr2"),
    "../../etc/passwd.png": (b"x", "without folders"),
    "/etc/passwd": (b"x", "without folders"),
    "a/b.png": (b"x", "without folders"),
    "..\\b.png": (b"x", "without folders"),
    "C:b.png": (b"x", "without folders"),
    ".hidden.png": (b"x", "without folders"),
    "..": (b"x", "without folders"),
    "": (b"x", "without folders"),
    "line\nbreak.png": (b"x", "control characters"),
    "nul\0.png": (b"x", "control characters"),
    "ä" * 120 + ".png": (b"x", "at most 200 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_in_words(user, server, name):
    content, reason = BAD[name]
    before = server[1].page.disk.used
    status, answer = user.send(content, name)
    assert status == 400 and reason in answer["error"], answer
    assert "/tmp" not in answer["error"] and "Traceback" not in answer["error"]
    assert user.state()["pictures"] == []
    folder = server[1].page.disk.folder
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert server[1].page.disk.used == before


def test_names_that_only_look_odd_are_taken(user, save):
    odd = [
        "two words.png",
        "12:30.png",
        "ünï–cødé 名.png",
        "Screenshot 2026-11-29 at 10.00.00\u202fAM.png",  # as macOS names them
        "写真\u30001.png",
        "no\u00a0break \U0001f469\u200d\U0001f52c.png",
        "%2e%2e.png",
        "<b>&amp;.png",
        "no_suffix",
    ]
    content = save().read_bytes()
    for name in odd:
        status, picture = user.send(content, name)
        assert status == 201 and picture["name"] == name
    id = user.state()["pictures"][2]["id"]
    user.denoise(id)
    assert "UTF-8''%C3%BCn%C3%AF" in _download(user, id)[0].replace("utf-8", "UTF-8")


def test_equal_names_get_numbers(user, save):
    content = save().read_bytes()
    names = [user.send(content, name)[1]["name"] for name in ("a.png", "A.png", "a.png")]
    assert names == ["a.png", "A-2.png", "a-3.png"]


def test_a_damaged_picture_fails_alone(user, save):
    content = save("whole.jpg").read_bytes()
    status, picture = user.send(content[: len(content) // 3], "cut.jpg")
    assert status == 201  # its header is whole
    whole = user.upload(save("whole.jpg"))
    shown = user.denoise(picture["id"])
    assert shown["state"] == "failed" and shown["error"].startswith("cut.jpg: ")
    assert str(user) and "/" not in shown["error"].replace("and/or", "")
    assert user.denoise(whole)["state"] == "done"


def test_a_batch_of_three_with_one_broken(user, save, by_command):
    good = [save("one.png"), save("two.jpg")]
    for path in good:
        user.upload(path)
    content = good[1].read_bytes()
    user.send(content[: len(content) // 3], "broken.jpg")
    status, _ = user.json("POST", "/api/batch", {"strength": 0.7, "format": "auto"})
    assert status == 200
    state = user.wait()
    assert [each["state"] for each in state["pictures"]] == ["done", "done", "failed"]
    status, headers, archive = user.ask("GET", "/api/results.zip")
    assert status == 200 and "denoised.zip" in headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        assert found.testzip() is None
        files = {name: found.read(name) for name in found.namelist()}
    failed = files.pop("failed.txt").decode()
    assert failed.startswith("broken.jpg: ") and failed.count("\n") == 1
    assert files == by_command(*good, strength=0.7)


def test_what_a_format_cannot_hold_is_told_of_the_last_file(user, save, noisy):
    """Apart from what is said of the result itself."""
    alpha = np.full((*noisy.shape[:2], 1), 4095, np.uint16)
    pixels = np.concatenate([noisy.astype(np.uint16) * 16, alpha], axis=2)
    id = user.upload(save("deep.png", pixels))
    of_the_result = user.denoise(id)["notes"]
    assert any("white is 4095" in note for note in of_the_result)

    def losses():
        notes = user.picture(id)["notes"]
        assert notes[: len(of_the_result)] == of_the_result
        return notes[len(of_the_result) :]

    _download(user, id, format="jpeg")
    told = losses()
    assert len(told) == 2 and all(note.startswith("deep.jpg: JPEG holds ") for note in told)
    for format, expected in (("jpeg", told), ("jpeg", told), ("png", [])):
        user.json("POST", "/api/batch", {"format": format})
        user.wait()
        assert losses() == expected
    _download(user, id, format="jpeg")
    assert losses() == told
    _download(user, id, format="tiff")
    assert losses() == []


def test_an_archive_needs_results(user, save):
    user.upload(save())
    status, answer = user.json("GET", "/api/results.zip")
    assert status == 404 and "denoise all" in answer["error"]


def test_users_do_not_see_each_other(server, user, save):
    id = user.upload(save())
    user.denoise(id)
    user.json("POST", "/api/batch", {})
    user.wait()
    other = User(server[0])
    assert other.state()["pictures"] == []
    for method, path in (
        ("GET", "result"),
        ("GET", "uncertainty"),
        ("GET", "noise.png"),
        ("GET", "tiles/noisy/0/0/0.png"),
        ("POST", "cancel"),
        ("DELETE", ""),
    ):
        path = f"/api/pictures/{id}/{path}".rstrip("/")
        assert other.ask(method, path)[0] == 404, path
    assert other.json("POST", f"/api/pictures/{id}/denoise", {})[0] == 404
    assert other.ask("GET", "/api/results.zip")[0] == 404
    other.ask("DELETE", "/api/pictures")
    assert user.picture(id)["state"] == "done"


def test_without_a_cookie_one_is_told_to_reload(server):
    user = User(server[0])
    user.cookies.clear()
    for method, path in (("GET", "/api/state"), ("POST", "/api/pictures?name=a.png")):
        status, answer = user.json(method, path)
        assert status == 404 and "reload" in answer["error"]


@pytest.fixture
def slow(monkeypatch):
    """Jobs that go on until they are cancelled."""
    started = threading.Event()

    def denoise(self, job, *rest):
        started.set()
        while True:
            job.report(0.25)

    monkeypatch.setattr(Work, "denoise", denoise)
    return started


def test_a_job_is_cancelled(user, save, slow):
    ids = [user.upload(save(name)) for name in ("a.png", "b.png")]
    for id in ids:
        user.json("POST", f"/api/pictures/{id}/denoise", {})
    slow.wait()
    first, second = user.wait(lambda state: state["pictures"][0]["share"])["pictures"]
    assert (first["state"], first["share"], first["place"]) == ("working", 0.25, 0)
    assert (second["state"], second["place"]) == ("waiting", 1)
    user.ask("POST", f"/api/pictures/{ids[1]}/cancel")
    assert user.picture(ids[1])["state"] == "new"
    user.ask("POST", "/api/cancel")
    state = user.wait()
    assert [each["state"] for each in state["pictures"]] == ["new", "new"]
    assert [each["error"] for each in state["pictures"]] == ["", ""]


def test_a_cancelled_picture_leaves_nothing(user, save, server, monkeypatch):
    id = user.upload(save())
    before = server[1].page.disk.used
    called = Denoiser.__call__

    def cancelling(self, image, on_tile, **options):
        user.ask("POST", f"/api/pictures/{id}/cancel")
        return called(self, image, on_tile, **options)

    monkeypatch.setattr(Denoiser, "__call__", cancelling)
    assert user.denoise(id)["state"] == "new"
    assert server[1].page.disk.used == before
    assert user.picture(id)["views"] == []


def test_a_picture_is_removed_while_it_is_denoised(user, save, server, slow):
    id = user.upload(save())
    user.json("POST", f"/api/pictures/{id}/denoise", {})
    slow.wait()
    assert user.ask("DELETE", f"/api/pictures/{id}")[0] == 200
    user.wait(lambda state: server[1].page.disk.used == 0)
    folder = server[1].page.disk.folder
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_unexpected_error_is_told_and_the_next_job_done(user, save, monkeypatch, capsys):
    def fail(self, job, *rest):
        raise RuntimeError("a bug")

    id = user.upload(save())
    with monkeypatch.context() as patch:
        patch.setattr(Work, "denoise", fail)
        assert user.denoise(id)["error"] == "photo.png: a bug"
    assert user.denoise(id)["state"] == "done"


@pytest.mark.parametrize(
    ("path", "asked", "reason"),
    [
        ("denoise", {"quality": "great"}, "fast, default, best"),
        ("denoise", {"adapted": 1}, "adapt again"),
        ("denoise", {"adapted": "x"}, "number"),
    ],
)
def test_settings_are_checked(user, save, path, asked, reason):
    id = user.upload(save())
    status, answer = user.json("POST", f"/api/pictures/{id}/{path}", asked)
    if status == 200:
        user.wait()
        answer = user.picture(id)
    assert reason in answer["error"]


@pytest.mark.parametrize(
    "query", ["strength=2", "strength=x", "strength=nan", "color_strength=-1", "format=zarr"]
)
def test_outputs_are_checked(user, save, query):
    id = user.upload(save())
    user.denoise(id)
    status, answer = user.json("GET", f"/api/pictures/{id}/result?{query}")
    assert status == 400 and "Received: " in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"3"])
def test_requests_that_are_no_json_are_refused(user, save, body):
    id = user.upload(save())
    status, answer = user.json("POST", f"/api/pictures/{id}/denoise", body)
    assert status == 400 and "reload" in answer["error"]


@pytest.mark.parametrize("name", ["page.py", "../server.py", "%2e%2e/server.py", "nothing.js"])
def test_only_the_pages_files_are_there(user, name):
    assert user.ask("GET", f"/static/{name}")[0] == 404


def test_each_file_of_the_page_is_there(user):
    for name, kind in (("page.js", "javascript"), ("viewer.css", "css"), ("icon.svg", "svg")):
        status, headers, content = user.ask("GET", f"/static/{name}")
        assert status == 200 and kind in headers["Content-Type"] and content


def test_files_are_bounded(save, noisy):
    with running(max_file_mb=0.02, max_megapixels=0.004) as (port, server):
        user = User(port)
        status, answer = user.send(bytes(30_000), "large.png")
        assert status == 413 and "--max_file_mb" in answer["error"]
        status, answer = user.send(save().read_bytes(), "photo.png")
        assert status == 400 and "--max_megapixels" in answer["error"]
        assert server.page.disk.used == 0


def test_the_disk_is_bounded_and_old_results_make_room(save):
    path = save()
    one = path.stat().st_size + 64 * 80 * 3 * 7 + 2**20
    with running(max_disk_gb=2.5 * one / 1e9) as (port, server):
        user = User(port)
        ids = [user.upload(path) for _ in range(3)]
        for id in ids:
            assert user.denoise(id)["state"] == "done"
        views = [each["views"] for each in user.state()["pictures"]]
        assert views == [[], ["noisy", "denoised"], ["noisy", "denoised"]]
        status, answer = user.json("GET", f"/api/pictures/{ids[0]}/result")
        assert status == 400 and "denoise the picture again" in answer["error"]
        assert user.denoise(ids[0])["state"] == "done"
        assert server.page.disk.used <= 2.5 * one
    with running(max_disk_gb=path.stat().st_size * 2.5 / 1e9) as (port, server):
        user = User(port)
        id = user.upload(path)
        shown = user.denoise(id)
        assert shown["state"] == "failed" and "--max_disk_gb" in shown["error"]
        user.upload(path)
        status, answer = user.send(path.read_bytes(), "third.png")
        assert status == 507 and "--max_disk_gb" in answer["error"]


def test_files_go_with_idle_users_and_with_the_server(save):
    with running(idle_minutes=1) as (port, server):
        folder = server.page.disk.folder
        user, other = User(port), User(port)
        user.denoise(user.upload(save()))
        assert [path for path in folder.rglob("*") if path.is_file()]
        server.page.clean()
        assert [path for path in folder.rglob("*") if path.is_file()]
        ago = server.page.sessions.find(next(iter(user.cookies.values())))
        ago.seen -= 61
        server.page.clean()
        assert not [path for path in folder.rglob("*") if path.is_file()]
        assert server.page.disk.used == 0
        status, answer = user.json("GET", "/api/state")
        assert status == 404 and "reload" in answer["error"]
        other.upload(save())
    assert not folder.exists()


def test_nothing_of_the_process_is_changed_by_a_picture(user, save):
    """Its folder stays, and so does what others find in the temporary folder."""
    before = Path.cwd(), {*os.environ}
    user.denoise(user.upload(save()))
    assert (Path.cwd(), {*os.environ}) == before


def test_a_model_that_is_not_there_stops_the_server():
    with running(model="nowhere") as (_, server):
        while not server.should_exit:
            time.sleep(0.01)
    assert "nowhere" in str(server.page.failure)


def test_the_old_result_is_shown_until_the_new_one_is_there(user, save, monkeypatch):
    id = user.upload(save())
    before = user.denoise(id)
    called = Denoiser.__call__
    during = []

    def looking(self, image, on_tile, **options):
        during.append(user.picture(id))
        return called(self, image, on_tile, **options)

    monkeypatch.setattr(Denoiser, "__call__", looking)
    after = user.denoise(id, quality="best")
    (shown,) = during
    assert shown["views"] == ["noisy", "denoised"] and shown["number"] == before["number"]
    assert shown["result"]["quality"] == "default" and after["result"]["quality"] == "best"
    assert after["number"] > before["number"]


def test_those_who_only_looked_make_room_for_others(save, monkeypatch):
    monkeypatch.setattr("cbsn.app.sessions._MOST_USERS", 2)
    with running() as (port, _):
        first = User(port)
        id = first.upload(save())
        second, third = User(port), User(port)
        assert first.picture(id) and third.state()["pictures"] == []
        assert second.json("GET", "/api/state")[0] == 404
        third.upload(save())
        fourth = User(port)
        assert fourth.status == 503 and b"try again later" in fourth.page


def test_a_picture_of_a_batch_that_is_looked_at_stays_in_the_batch(user, save, monkeypatch):
    paths = [save(name) for name in ("a.png", "b.png", "c.png")]
    ids = [user.upload(path) for path in paths]
    made, go_on = Work._make_result, threading.Event()

    def waiting(self, *rest):
        assert go_on.wait(PATIENCE)
        made(self, *rest)

    monkeypatch.setattr(Work, "_make_result", waiting)
    user.json("POST", "/api/batch", {})
    # One that runs, and one that waits.
    user.json("POST", f"/api/pictures/{ids[0]}/denoise", {"quality": "best"})
    user.json("POST", f"/api/pictures/{ids[2]}/denoise", {})
    go_on.set()
    state = user.wait()
    assert [each["final"] for each in state["pictures"]] == ["a.png", "b.png", "c.png"]


def test_a_white_that_was_guessed_is_told(user, save):
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 32, 3), np.uint16)
    notes = user.denoise(user.upload(save("dark.png", pixels)))["notes"]
    assert any("12 bits, white is 4095" in note for note in notes), notes


def test_a_batch_after_another_one_has_its_own_settings(user, save, monkeypatch):
    """Also for a picture whose file of the first batch is being written at that moment."""
    id = user.upload(save("a.png"))
    write, is_writing, go_on = Work.write, threading.Event(), threading.Event()

    def waiting(self, *rest):
        is_writing.set()
        assert go_on.wait(PATIENCE)
        write(self, *rest)

    monkeypatch.setattr(Work, "write", waiting)
    user.json("POST", "/api/batch", {})
    assert is_writing.wait(PATIENCE)
    user.json("POST", "/api/batch", {"strength": 0, "format": "tiff"})
    go_on.set()
    user.wait()
    assert user.picture(id)["final"] == "a.tif"
    assert user.ask("GET", "/api/results.zip")[0] == 200


def test_a_batch_is_cancelled_as_a_whole(user, save, slow):
    ids = [user.upload(save(name)) for name in ("a.png", "b.png")]
    user.json("POST", "/api/batch", {})
    slow.wait()
    user.json("POST", f"/api/pictures/{ids[1]}/denoise", {})
    user.ask("POST", "/api/cancel")
    state = user.wait()
    assert [each["state"] for each in state["pictures"]] == ["new", "new"]
    assert user.json("GET", "/api/results.zip")[0] == 404


def test_a_name_is_free_only_when_its_file_is_gone(user, save, slow):
    path = save()
    id = user.upload(path)
    user.json("POST", f"/api/pictures/{id}/denoise", {})
    slow.wait()
    user.ask("DELETE", f"/api/pictures/{id}")
    again = user.upload(path)
    user.wait(lambda state: user.json("GET", "/api/state")[0] == 200)
    assert user.picture(again)["name"] in ("photo.png", "photo-2.png")
    assert user.json("POST", f"/api/pictures/{again}/noise", {})[0] == 200
    user.wait()
    assert "no such file" not in str(user.picture(again))


def test_an_adaptation_that_does_not_help_leaves_the_model_before(user, save, monkeypatch):
    user.upload(save())
    outcomes = iter([False, True, False, True])

    def adapt(paths, denoiser, minutes, **rest):
        return Adapted(denoiser.recipe, denoiser.network, {"adapted": next(outcomes)})

    monkeypatch.setattr(adaptation, "adapt", adapt)
    numbers = []
    for _ in range(4):
        assert user.json("POST", "/api/adapt", {"minutes": 1})[0] == 200
        state = user.wait(lambda state: state["adaptation"]["state"] == "done")
        numbers.append((state["adaptation"]["has_changed"], (state["adapted"] or {}).get("number")))
    assert numbers == [(False, None), (True, 1), (False, 1), (True, 2)]
    assert user.denoise(state["pictures"][0]["id"], adapted=2)["state"] == "done"


@pytest.mark.parametrize(
    "body", [b" " * 70_000 + b"{}", b"[" * 50_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000]
)
def test_large_and_deep_requests_are_refused(user, save, body):
    user.upload(save())
    status, answer = user.json("POST", "/api/batch", body)
    assert status == 400 and "reload" in answer["error"]


def test_a_request_without_a_user_is_not_read(server):
    stranger = User(server[0])
    stranger.cookies.clear()
    assert stranger.ask("POST", "/api/batch", b"{" * 50_000)[0] == 404


@pytest.mark.parametrize("value", ["true", "-1", "1.5", '"x"', "[]"])
def test_numbers_of_models_are_numbers(user, save, value):
    id = user.upload(save())
    body = f'{{"adapted": {value}}}'.encode()
    assert user.json("POST", f"/api/pictures/{id}/denoise", body)[0] == 400


@pytest.mark.parametrize("value", ["true", "[]", '"x"', "2", "1" + "0" * 400, "NaN"])
def test_strengths_are_numbers_from_0_to_1(user, save, value):
    user.upload(save())
    status, answer = user.json("POST", "/api/batch", f'{{"strength": {value}}}'.encode())
    assert status == 400 and "from 0 to 1" in answer["error"]


@pytest.mark.parametrize("value", ["true", "0", "-1", "NaN", "121", '"x"', "null", "1e999"])
def test_minutes_are_above_0_and_bounded(user, save, value):
    user.upload(save())
    status, answer = user.json("POST", "/api/adapt", f'{{"minutes": {value}}}'.encode())
    assert status == 400 and "minutes above 0 and up to 120" in answer["error"]


@pytest.mark.parametrize("place", ["-1/0/0", "0/" + "9" * 5000 + "/0", "0/0/x", "0/0/٣"])
def test_odd_places_of_tiles_are_not_there(user, save, place):
    id = user.upload(save())
    user.denoise(id)
    path = urllib.parse.quote(f"/api/pictures/{id}/tiles/noisy/{place}.png")
    assert user.ask("GET", path)[0] == 404


def test_what_is_announced_as_too_large_is_refused_at_once():
    with running(max_file_mb=1) as (port, _):
        user = User(port)
        headers = {"Content-Length": "2000000"}
        status, _, content = user.ask("POST", "/api/pictures?name=a.png", b"", **headers)
        assert status == 413 and b"--max_file_mb" in content
