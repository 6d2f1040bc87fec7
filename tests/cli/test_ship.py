import numpy as np

from cbsn.models.folder import save_model
from cbsn.models.loading import load_model


def test_a_shipped_model_is_half_as_large_and_the_same_but_for_rounding(tmp_path, model, run_here):
    process = run_here("ship", "--modelpath", model, "--out", "shipped")
    assert process.returncode == 0, process.stderr
    recipe, network = load_model(tmp_path / model)
    assert f"shipped: cbsn, {network.count_params():,} parameters" in process.stdout
    ours, theirs = load_model(tmp_path / "shipped")
    assert ours == recipe
    different = 0
    for a, b in zip(theirs.get_weights(), network.get_weights(), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2**-11, atol=2**-24)
        different += (a != b).any()
    assert different
    sizes = [(tmp_path / name / "model.weights.h5").stat().st_size for name in (model, "shipped")]
    assert sizes[1] < sizes[0]


def test_part_of_a_change(tmp_path, model, run_here):
    """Half of what training further changed, to the rounding of float16."""
    recipe, network = load_model(tmp_path / model)
    first = network.get_weights()
    network.set_weights([weight + 0.25 for weight in first])
    save_model(tmp_path / "further", recipe, network, {})
    flags = ("--modelpath", "further", "--start", model, "--share", "0.5", "--out", "shipped")
    process = run_here("ship", *flags)
    assert process.returncode == 0, process.stderr
    for a, b in zip(load_model(tmp_path / "shipped")[1].get_weights(), first, strict=True):
        np.testing.assert_allclose(a, b + 0.125, rtol=2**-11, atol=2**-24)


def test_only_what_it_has_written_is_replaced(tmp_path, model, run_here):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_text("a picture")
    (tmp_path / "b.png").write_text("another one")
    for out in "photos", "b.png", model:
        process = run_here("ship", "--model", model, "--out", out)
        assert process.returncode == 2
        assert f"something else is there. Received: --out {out}" in process.stderr
    assert (tmp_path / "photos/a.png").exists() and (tmp_path / "b.png").is_file()
    for _ in range(2):
        process = run_here("ship", "--model", model, "--out", "shipped")
        assert process.returncode == 0, process.stderr


def test_what_cannot_be_shipped_is_said(tmp_path, model, run_here):
    for flags, message in (
        (("--modelpath", "nothing", "--out", "b"), "No model at nothing"),
        (("--modelpath", model, "--out", "no/where"), "no/where cannot be written"),
        (
            ("--modelpath", model, "--out", "b", "--start", "photo"),
            "of the same network. Received: photo, ResidualAttentionUNet with",
        ),
        (("--modelpath", model, "--out", "b", "--start", model, "--share", "2"), "--share"),
        (("--modelpath", model, "--out", "b", "--share", "0.5"), "needs the model that it started"),
    ):
        process = run_here("ship", *flags)
        assert process.returncode == 2
        assert message in process.stderr
