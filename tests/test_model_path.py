import dataclasses
import json

import h5py
import numpy as np
import pytest

from cbsn import model_path
from cbsn.errors import ModelError
from cbsn.model_folder import save_model
from cbsn.model_path import load_model
from cbsn.recipes import RECIPES, customised


@pytest.fixture
def recipe():
    return dataclasses.replace(
        RECIPES["cbsn"], network_config={"filters": 4, "num_modules": 1}, patch_size=20
    )


@pytest.fixture
def saved(recipe, tmp_path):
    network = recipe.build_network()
    save_model(tmp_path / "last", recipe, network, {"step": 7})
    return network


def _same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def test_saved_model_folder(recipe, saved, tmp_path):
    loaded, network = load_model(tmp_path / "last")
    assert loaded == recipe
    assert _same(network, saved)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


def test_the_names_in_a_weights_file_stay(saved, tmp_path):
    """Keras makes them of attributes and, in lists, of classes: renaming breaks saved models."""
    names = []
    with h5py.File(tmp_path / "last" / "model.weights.h5") as file:
        file.visititems(lambda name, item: names.append(name) if item.name[-1].isdigit() else None)
    branch = ("dilated_modules/dilated_module/pointwise", "dilated_modules/dilated_module/spatial")
    branch += ("masked", "pointwise1", "pointwise2", "pointwise3")
    layers = [
        *(
            f"branches/{b}/{name}"
            for b in ("dilated_branch", "dilated_branch_1")
            for name in branch
        ),
        "head",
        *(f"layers/conv2d_{i}" for i in range(1, 5)),
    ]
    expected = [f"{layer}/vars/{i}" for layer in layers for i in (0, 1)]
    assert [name for name in names if "/vars/" in name] == expected


def test_run_folder_prefers_the_best(recipe, saved, tmp_path):
    assert _same(load_model(tmp_path)[1], saved)
    best = recipe.build_network()
    save_model(tmp_path / "best", recipe, best, {})
    assert _same(load_model(tmp_path)[1], best)


def test_saving_again_replaces(recipe, saved, tmp_path):
    other = recipe.build_network()
    save_model(tmp_path / "last", recipe, other, {"step": 8})
    assert _same(load_model(tmp_path / "last")[1], other)
    assert json.loads((tmp_path / "last/recipe.json").read_text())["training"] == {"step": 8}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


def test_shipped_name(recipe, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(model_path, "SHIPPED", tmp_path)
    assert _same(load_model("last")[1], saved)
    with pytest.raises(ModelError, match="Shipped models: last"):
        load_model("lost")


def test_original_checkpoint(golden):
    recipe, network = load_model(golden("small/CBSN_small.ckpt"))
    assert recipe.network_config == {"filters": 16, "num_modules": 2, "channels": 3}
    assert network.count_params() == 26_771


def test_original_checkpoint_by_its_index_file(golden):
    prefix = golden("small/CBSN_small.ckpt")
    assert load_model(f"{prefix}.index")[1].count_params() == 26_771


def test_a_wrong_size_flag_is_refused(golden):
    prefix = golden("small/CBSN_small.ckpt")
    assert load_model(prefix, channel=16, num_block=2)
    with pytest.raises(ModelError, match="--channel 128"):
        load_model(prefix, channel=128)


def test_bare_weights_need_their_size(saved, tmp_path):
    weights = tmp_path / "last/model.weights.h5"
    assert _same(load_model(weights, channel=4, num_block=1)[1], saved)
    with pytest.raises(ModelError, match="--channel and --num_block"):
        load_model(weights, channel=8, num_block=1)


def test_bare_weights_of_another_recipe(tmp_path):
    network = customised("apbsn", filters=4, num_modules=1).build_network()
    network.save_weights(tmp_path / "some.weights.h5")
    size = {"channel": 4, "num_block": 1}
    recipe, loaded = load_model(tmp_path / "some.weights.h5", recipe_name="apbsn", **size)
    assert recipe.name == "apbsn"
    assert _same(loaded, network)
    with pytest.raises(ModelError, match=r"recipe 'cbsn'.*--recipe"):
        load_model(tmp_path / "some.weights.h5", **size)


def test_another_recipe_than_the_models_is_refused(saved, tmp_path):
    assert load_model(tmp_path, recipe_name="cbsn")
    with pytest.raises(ModelError, match=r"recipe=cbsn.*--recipe apbsn"):
        load_model(tmp_path, recipe_name="apbsn")


def test_an_altered_file_is_refused(saved, tmp_path):
    weights = tmp_path / "last/model.weights.h5"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.weights\.h5 is not the file that was saved"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["recipe.json", "model.weights.h5"])
def test_a_missing_file_is_an_error(saved, tmp_path, name):
    (tmp_path / "last" / name).unlink()
    with pytest.raises(ModelError):
        load_model(tmp_path / "last")


def test_nothing_there_says_what_could_be(tmp_path):
    with pytest.raises(ModelError, match="No model at"):
        load_model(tmp_path / "nothing")
