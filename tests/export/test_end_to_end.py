"""An exported model on a server gives a client what `infer.py` writes."""

from pathlib import Path

import numpy as np
import pytest

from cbsn.data.image_io import read_picture
from cbsn.export import client
from cbsn.export.server import StandInServer
from cbsn.inference.each_picture import denoise_each
from tests.inference.beam.samples import GOOD, REASONS, save_bad, save_good


@pytest.fixture(scope="module")
def server(saved_model):
    with StandInServer(saved_model.parent) as server:
        yield server


@pytest.mark.parametrize("way", ["--grpc", "--rest"])
def test_files_are_those_of_infer(server, denoiser, tmp_path, monkeypatch, capsys, way):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    save_good(tmp_path / "in")
    save_bad(tmp_path / "in")

    def start():
        return lambda picture, report: picture.with_pixels(denoiser(picture.pixels))

    assert denoise_each(["in/**"], "expected", start) == 1
    expected = capsys.readouterr().err
    port = server.port if way == "--grpc" else server.rest_api_port
    flags = [way, "--url", f"127.0.0.1:{port}", "--savepath", "out", "in/**"]
    assert client.main(client.make_parser().parse_args(flags)) == 1

    failures = capsys.readouterr().err
    for name in REASONS:
        assert f"failed: in/{name}" in failures
        assert f"failed: in/{name}" in expected
    written = sorted(path.relative_to("out") for path in Path("out").rglob("*.*"))
    assert len(written) == len(GOOD)
    for name in written:
        found, wanted = read_picture("out" / name), read_picture("expected" / name)
        for what in ("format", "exif", "icc_profile"):
            assert getattr(found, what) == getattr(wanted, what), name
        assert (found.pixels.dtype, found.pixels.shape) == (
            wanted.pixels.dtype,
            wanted.pixels.shape,
        )
        assert np.abs(found.pixels.astype(int) - wanted.pixels).max() <= 1, name
