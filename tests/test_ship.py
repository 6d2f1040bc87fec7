import numpy as np

from cbsn.model_path import load_model


def test_a_shipped_model_is_half_as_large_and_the_same_but_for_rounding(tmp_path, model, run_here):
    process = run_here("cbsn.ship", "--modelpath", model, "--out", "shipped")
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


def test_what_cannot_be_shipped_is_said(tmp_path, model, run_here):
    for flags, message in (
        (("--modelpath", "nothing", "--out", "b"), "No model at nothing"),
        (("--modelpath", model, "--out", "no/where"), "no/where cannot be written"),
    ):
        process = run_here("cbsn.ship", *flags)
        assert process.returncode == 2
        assert message in process.stderr
