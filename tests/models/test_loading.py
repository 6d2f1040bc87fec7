import contextlib
import dataclasses
import errno
import json
import math
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from cbsn.errors import CbsnWarning, ConfigError, ModelError
from cbsn.files import write_checksums
from cbsn.models import loading
from cbsn.models.folder import save_model
from cbsn.models.loading import load_model, read_initial, read_training
from cbsn.recipes import RECIPES, Recipe, customised


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


def test_what_a_model_says_of_its_training(recipe, saved, tmp_path):
    save_model(tmp_path / "best", recipe, recipe.build_network(), {"step": 8})
    assert read_training(tmp_path) == read_training(tmp_path / "best") == {"step": 8}
    (tmp_path / "best/recipe.json").write_text('{"training": "long"}')
    assert read_training(tmp_path) == read_training(tmp_path / "nothing") == {}


def test_shipped_name(recipe, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    assert _same(load_model("last")[1], saved)
    with pytest.raises(ModelError, match="Shipped models: last"):
        load_model("lost")


@pytest.mark.parametrize(
    ("name", "parameters", "note"),
    [
        ("photo", 510_238, None),
        ("photo_large", 8_199_863, None),
        ("photo-large", 8_199_863, None),
        ("student", 510_238, "photo"),
        ("teacher", 8_199_863, "photo_large"),
    ],
)
def test_shipped_models_by_their_names(name, parameters, note, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    assert load_model(name)[1].count_params() == parameters
    notes = [str(w.message) for w in recwarn if issubclass(w.category, CbsnWarning)]
    assert notes == (
        [f"The model {name} is no longer included; using {note} instead."] if note else []
    )


def test_a_folder_of_an_old_name_is_that_folder(recipe, saved, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    shutil.move("last", "student")
    assert _same(load_model("student")[1], saved)
    assert not [w for w in recwarn if issubclass(w.category, CbsnWarning)]


def test_original_checkpoint(golden):
    recipe, network = load_model(golden("small/CBSN_small.ckpt"))
    assert recipe.network_config == {"filters": 16, "num_modules": 2, "channels": 3}
    assert network.count_params() == 26_771


def test_original_checkpoint_by_its_index_file(golden):
    prefix = golden("small/CBSN_small.ckpt")
    assert load_model(f"{prefix}.index")[1].count_params() == 26_771


def test_a_wrong_size_flag_is_refused(golden):
    prefix = golden("small/CBSN_small.ckpt")
    assert load_model(prefix, channels=16, modules=2)
    with pytest.raises(ModelError, match="--channels 128"):
        load_model(prefix, channels=128)


def test_weights_beside_their_recipe_are_those_of_the_folder(recipe, saved, tmp_path):
    weights = tmp_path / "last/model.weights.h5"
    loaded, network = load_model(weights)
    assert loaded == recipe
    assert _same(network, saved)
    with pytest.raises(ModelError, match="omit --channel"):
        load_model(weights, channels=8)
    (tmp_path / "last/SHA256SUMS").write_text("")
    with pytest.raises(ModelError, match="SHA256SUMS does not name"):
        load_model(weights)


@pytest.fixture
def bare(saved, tmp_path):
    """A file of weights without the rest of their folder."""
    return shutil.copy(tmp_path / "last/model.weights.h5", tmp_path / "some.weights.h5")


def test_bare_weights_need_their_size(saved, bare):
    weights = bare
    assert _same(load_model(weights, channels=4, modules=1)[1], saved)
    with pytest.raises(ModelError, match="--channels and --modules"):
        load_model(weights, channels=8, modules=1)


def test_bare_weights_of_another_recipe(tmp_path):
    network = customised("apbsn", filters=4, num_modules=1).build_network()
    network.save_weights(tmp_path / "some.weights.h5")
    size = {"channels": 4, "modules": 1}
    recipe, loaded = load_model(tmp_path / "some.weights.h5", recipe="apbsn", **size)
    assert recipe.name == "apbsn"
    assert _same(loaded, network)
    with pytest.raises(ModelError, match=r"recipe 'cbsn'.*--recipe"):
        load_model(tmp_path / "some.weights.h5", **size)


def test_another_recipe_than_the_models_is_refused(saved, tmp_path):
    assert load_model(tmp_path, recipe="cbsn")
    with pytest.raises(ModelError, match=r"recipe=cbsn.*--recipe apbsn"):
        load_model(tmp_path, recipe="apbsn")


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


DAMAGED_RECIPES = {
    "no UTF-8": b'{"format": 1, "recipe": "\xff"}',
    "no JSON": b"{",
    "empty": b"",
    "a list": b"[1]",
    "a number": b"1e999",
    "deeply nested": b"[" * 100_000,
    "too long a number": b'{"format": ' + b"9" * 10_000 + b"}",
    "another format": b'{"format": 1000000000000000000000000000000}',
    "huge": b'{"format": 1, "recipe": {' + b" " * 2_000_000 + b"}}",
}


@pytest.mark.parametrize("content", DAMAGED_RECIPES.values(), ids=DAMAGED_RECIPES)
def test_a_recipe_of_any_content_is_a_model_error(saved, tmp_path, content):
    (tmp_path / "last/recipe.json").write_bytes(content)
    (tmp_path / "last/SHA256SUMS").unlink()
    write_checksums(tmp_path / "last")
    with pytest.raises(ModelError, match=r"last: .*[.\d]$") as caught:
        load_model(tmp_path / "last")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "own"), [("tmbsn", 3), ("cbsn-hole", 0)])
def test_a_model_may_denoise_with_another_hole(tmp_path, name, own):
    recipe = customised(name, filters=4, depth=1)
    network = recipe.build_network()
    save_model(tmp_path / "model", recipe, network, {})
    assert load_model(tmp_path / "model")[1].denoise_hole == own
    other, changed = load_model(tmp_path / "model", hole=7, precision="mixed_bfloat16")
    assert (other.network_config["denoise_hole"], changed.denoise_hole, changed.hole) == (7, 7, 9)
    assert changed.dtype_policy.name == "mixed_bfloat16"
    for mine, theirs in zip(network.get_weights(), changed.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ConfigError, match=r"hole must be odd.*or 0 for none\. Received: .*hole 4$"):
        load_model(tmp_path / "model", hole=4)


@pytest.mark.usefixtures("saved")
def test_other_models_have_no_hole(tmp_path):
    with pytest.raises(ConfigError, match=r"tmbsn and cbsn-hole have a hole: omit --hole.*hole 3"):
        load_model(tmp_path, hole=3)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("value", [None, math.nan, math.inf, 10**9, 10**400, -1, "7", [7], {}])
def test_a_recipe_of_any_values_is_used_or_refused(tmp_path, recipe, value, monkeypatch):
    """No network is built of them, which could take all memory, but for that of the defaults."""

    def build(recipe, *_):
        assert recipe.network_config == {}
        raise ConfigError("not here")

    monkeypatch.setattr(Recipe, "build_network", build)
    whole = RECIPES[recipe].to_dict()
    damaged = [{**whole, key: value} for key in whole]
    for config in ("network_config", "objective_config"):
        damaged += [{**whole, config: {**whole[config], key: value}} for key in whole[config]]
    tmp_path.joinpath("model.weights.h5").write_bytes(b"no HDF5")
    for content in damaged:
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps({"format": 1, "recipe": content, "training": {}}))
        tmp_path.joinpath("SHA256SUMS").unlink(missing_ok=True)
        write_checksums(tmp_path)
        with pytest.raises(ModelError) as caught:
            load_model(tmp_path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_weights_with_the_right_checksum_and_damaged_hdf5_are_a_model_error(saved, tmp_path):
    weights = tmp_path / "last/model.weights.h5"
    whole = weights.read_bytes()
    heap = whole.index(b"HEAP")
    damages = {"heap": (heap + 16, b"\xff" * 8), "tree": (whole.index(b"TREE") + 6, b"\xff\xff")}
    for place, junk in damages.values():
        weights.write_bytes(whole[:place] + junk + whole[place + len(junk) :])
        (tmp_path / "last/SHA256SUMS").unlink()
        write_checksums(tmp_path / "last")
        with pytest.raises(ModelError, match=r"model\.weights\.h5 cannot be read.*Copy the folder"):
            load_model(tmp_path)


@pytest.mark.parametrize("kind", ["flip", "cut", "junk", "zero"])
def test_bare_weights_of_any_bytes_are_used_or_refused(bare, kind):
    whole = bare.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(12):
        data, place = bytearray(whole), int(generator.integers(len(whole)))
        if kind == "flip":
            data[place] ^= 1 << int(generator.integers(8))
        elif kind == "cut":
            del data[place:]
        else:
            data[place : place + 200] = bytes(200) if kind == "zero" else generator.bytes(200)
        bare.write_bytes(data)
        with contextlib.suppress(ModelError):
            load_model(bare, channels=4, modules=1)


def test_weights_that_are_not_finite_are_refused(recipe, tmp_path):
    network = recipe.build_network()
    network.weights[3].assign(network.weights[3] * np.nan)
    save_model(tmp_path / "last", recipe, network, {})
    with pytest.raises(ModelError, match=r"values that are not finite.*Use another model"):
        load_model(tmp_path)


def test_memory_that_ran_out_is_no_damage(saved, tmp_path, monkeypatch):
    def run_out(*_):
        raise MemoryError

    monkeypatch.setattr("keras.Model.load_weights", run_out)
    with pytest.raises(MemoryError):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/", "a" * 300, "a\0b", "~nobody-of-that-name/a", "\n"]
)
def test_no_path_ends_in_anything_but_a_model_error(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        load_model(path)


def test_a_folder_without_permission_is_told(tmp_path, monkeypatch):
    # Root may read everything.
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(ModelError, match=r"locked/model .*Permission denied.*that you may read"):
        load_model(tmp_path / "locked/model")


def test_nothing_there_says_what_could_be(tmp_path):
    with pytest.raises(ModelError, match="No model at"):
        load_model(tmp_path / "nothing")


def test_the_size_of_the_network_comes_with_the_weights(tmp_path, model):
    changes, weights = read_initial(tmp_path / model, "cbsn", {"max_steps": 3, "filters": None})
    assert changes == {"max_steps": 3, "filters": 4, "num_modules": 1, "channels": 3}
    expected = load_model(tmp_path / model)[1].get_weights()
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("apbsn", {}, "network='DilatedBlindSpotNetwork'.*--recipe cbsn.*--init"),
        ("cbsn", {"filters": 8}, "filters=4.*Received: filters=8"),
        ("cbsn", {"channels": 1}, "channels=3.*Received: channels=1"),
    ],
)
def test_initial_weights_of_other_networks_are_refused(tmp_path, model, recipe, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_initial(tmp_path / model, recipe, changes)


@pytest.fixture
def save_unet(tmp_path):
    """Writes a small model of a recipe with the U-Net; returns its folder."""

    def save(name, **changes):
        recipe = customised(name, filters=4, depth=1, **changes)
        save_model(tmp_path / name, recipe, recipe.build_network(), {})
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("name", "recipe", "differs"),
    [
        ("n2v-unet", "n2v2-unet", "pooling='blur'.*has 'max'"),
        ("n2v2-unet", "n2v-unet", "pooling='max'.*has 'blur'"),
        ("n2v2-unet", "dil-unet", "pooling='max'.*has 'blur'"),
        ("n2v-unet", "n2v-unet-3d", "dimensions=3.*has 2"),
        ("n2v-unet-3d", "n2v-unet", "dimensions=2.*has 3"),
    ],
)
def test_initial_weights_of_another_kind_of_network_are_refused(save_unet, name, recipe, differs):
    """Also where a recipe leaves it to the network's default."""
    with pytest.raises(ConfigError, match=rf"{differs}.*--recipe {name}, or another model"):
        read_initial(save_unet(name), recipe, {})


def test_a_skip_tells_networks_apart(save_unet):
    with pytest.raises(ConfigError, match=r"top_skip=True.*has False"):
        read_initial(save_unet("n2v-unet", top_skip=False), "n2v-unet", {})


def test_what_a_model_leaves_to_its_network_is_its_size_too(tmp_path):
    """The recipe has another value."""
    recipe = customised("n2v-unet-3d", filters=4)
    config = {key: value for key, value in recipe.network_config.items() if key != "z_halvings"}
    recipe = dataclasses.replace(recipe, network_config=config)
    save_model(tmp_path / "a", recipe, recipe.build_network(), {})
    changes, weights = read_initial(tmp_path / "a", recipe.name, {})
    assert changes["z_halvings"] == 0
    customised(recipe.name, **changes).build_network().set_weights(weights)
    with pytest.raises(ConfigError, match=r"z_halvings=0: omit.*z_halvings=1"):
        read_initial(tmp_path / "a", recipe.name, {"z_halvings": 1})


@pytest.mark.parametrize(
    ("theirs", "given", "expected"),
    [
        ({"mask_shape": "x:3"}, {"mask_shape": None}, {"mask_shape": "x:3", "mask_cell": 4}),
        ({"mask_shape": "x:3"}, {"mask_shape": "point"}, {"mask_shape": "point", "mask_cell": 4}),
        ({"mask_shape": "x:3"}, {"mask_shape": "auto"}, {"mask_shape": "auto", "mask_cell": 4}),
        ({}, {"mask_shape": "y:2", "mask_cell": 6}, {"mask_shape": "y:2", "mask_cell": 6}),
        ({"mask_cell": 6}, {}, {"mask_cell": 6}),
        ({"replacement": "median"}, {}, {"replacement": "median"}),
        ({"replacement": "median"}, {"replacement": "random"}, {"replacement": "random"}),
    ],
)
def test_initial_weights_may_go_on_with_another_mask(save_unet, theirs, given, expected):
    """As no weight depends on it; without a flag, the model's is kept."""
    changes, _ = read_initial(save_unet("n2v-unet", **theirs), "n2v-unet", given)
    assert changes.items() >= {**expected, "filters": 4, "depth": 1}.items()
    assert "pooling" not in changes  # as the recipe has it, too


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (9, 3)), ({"hole": 5}, (5, 3)), ({"hole": "auto", "denoise_hole": 0}, ("auto", 0))],
)
def test_initial_weights_may_go_on_with_another_hole(tmp_path, given, expected):
    recipe = customised("tmbsn", filters=4, depth=1)
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    changes, _ = read_initial(tmp_path / "model", "tmbsn", given)
    changes = {**recipe.network_config, **changes}
    assert (changes["hole"], changes["denoise_hole"]) == expected


def test_an_initial_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="nothing"):
        read_initial(tmp_path / "nothing", "cbsn", {})
