import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile

from cbsn.errors import ConfigError, ImageError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.images.stacks.stack import Channel, Layout
from cbsn.inference import stack_steps
from cbsn.inference.beam import pipeline
from cbsn.inference.beam import stacks as beam_stacks
from cbsn.inference.beam.job import denoise_with_beam
from cbsn.inference.beam.stacks import (
    StackJob,
    StackPart,
    StackPlan,
    denoise_part,
    finish_stack,
    plan_stack,
)
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import denoise_stacks
from cbsn.models.folder import save_model
from cbsn.recipes import customised

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")
HERE = StackOptions()


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Groups of two of the planes that are used here."""
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 2 * 24 * 40)


@pytest.fixture
def array(random):
    """TCYX, uint16."""
    return random.poisson(400, (5, 2, 24, 40)).astype(np.uint16)


@pytest.fixture
def sources(tmp_path, array):
    """A folder with a stack of each kind, and a picture."""
    folder = tmp_path / "in"
    folder.mkdir()
    save_tiff(folder / "cells.tif", array)
    save_zarr(folder / "cells.ome.zarr", array)
    write_picture(folder / "photo.png", Picture((array[0, 0, ..., None] // 4).astype("u1"), ""))
    return folder


def save_tiff(path, array):
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TCYX", "finterval": 2.0})


def save_zarr(path, array):
    channels = Channel("DNA", "#0000FF"), Channel("actin")
    layout = Layout("TCYX", array.shape, array.dtype, "OME-TIFF", channels=channels)
    file = create_ome_zarr(path, [layout], resume=False)
    rows, columns = (slice(0, size) for size in array.shape[2:])
    for index in np.ndindex(array.shape[:2]):
        file.write(0, index, rows, columns, array[index])
    file.close()


def run(folder, model, output="out", options=OPTIONS, **given):
    return denoise_with_beam(
        str(model),
        [str(folder / "in" / "*.*")],
        str(folder / output),
        format=given.pop("format", "auto"),
        options=options,
        stacks=StackOptions(**given),
    )


def expected(model, folder, sources, options=OPTIONS, **given):
    """What cbsn denoise makes of stacks, by name."""
    folder.mkdir()
    denoiser = Denoiser.load(model, options)
    outputs = {source: folder / source.name for source in sources}
    assert denoise_stacks([denoiser], outputs, StackOptions(**given)) == 0
    return contents(folder)


def contents(folder):
    """The files in a folder of results, by name, but for those of the run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("failed", "run.json")
    }


def failures(folder):
    lines = [line for each in folder.glob("failed/*") for line in each.read_text().splitlines()]
    return {each["source"]: each["reason"] for each in map(json.loads, lines)}


def test_results_are_those_of_denoise(sources, tiny_model, tmp_path, capsys):
    """All bytes, the ranges that viewers show among them; and a second run has nothing to do."""
    assert run(tmp_path, tiny_model) == 0
    output = capsys.readouterr().out
    assert "1 picture and 2 stacks to denoise, 0 done before" in output
    assert "3 denoised, 0 were already done, 0 failed" in output
    found = contents(tmp_path / "out")
    assert found.pop("photo.png")
    wanted = expected(tiny_model, tmp_path / "expected", [*sources.glob("cells*")])
    assert found == wanted
    with open_stacks(tmp_path / "out" / "cells.ome.zarr") as [result]:
        assert result.read((4, 1)).std() > 1
    assert run(tmp_path, tiny_model) == 0
    assert "0 denoised, 3 were already done, 0 failed" in capsys.readouterr().out


def test_flags_are_those_of_denoise(sources, tiny_model, tmp_path):
    (sources / "photo.png").unlink()
    flags = {"select": "t=1:4,c=1", "roi": "2:20,8:40", "normalize": "percentile"}
    flags |= {"dtype": "float32", "nan": "fill"}
    assert run(tmp_path, tiny_model, **flags) == 0
    wanted = expected(tiny_model, tmp_path / "expected", [*sources.iterdir()], **flags)
    assert contents(tmp_path / "out") == wanted
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert flags.items() <= record.items() and "axes" not in record
    with pytest.raises(ConfigError, match=r"normalize percentile \(now range\)"):
        run(tmp_path, tiny_model, **{**flags, "normalize": "range"})
    (sources / "cells.tif").unlink()
    shutil.rmtree(sources / "cells.ome.zarr")
    write_picture(sources / "photo.png", Picture(np.zeros((9, 9, 1), np.uint8), ""))
    with pytest.raises(ConfigError, match="--select is for stacks, and none of the pictures"):
        run(tmp_path, tiny_model, "other", **flags)


@pytest.mark.slow
def test_a_large_plane_is_one_groups(random, tiny_model, tmp_path, monkeypatch):
    """Its parts share chunks, so one process writes them, one after the other."""
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    (tmp_path / "in").mkdir()
    save_zarr(tmp_path / "in" / "a.ome.zarr", random.poisson(50, (1, 2, 530, 520)).astype("u1"))
    denoiser = Denoiser.load(tiny_model, OPTIONS)
    job = StackJob(str(tmp_path / "in" / "a.ome.zarr"), str(tmp_path / "b.ome.zarr"))
    assert plan_stack(job, denoiser, HERE).groups == (0, 1)
    assert run(tmp_path, tiny_model) == 0
    wanted = expected(tiny_model, tmp_path / "expected", [tmp_path / "in" / "a.ome.zarr"])
    assert contents(tmp_path / "out") == wanted


@pytest.mark.slow
def test_volumes_are_denoised_slab_by_slab(volume_model, tmp_path, random, monkeypatch):
    """A group for each slab, with the planes around it; into chunks of whole planes."""
    save_model(tmp_path / "volumes", *volume_model, {})
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    monkeypatch.setattr(stack_steps, "_VOXELS", 42 * 520 * 16)
    array = random.integers(0, 8, (45, 2, 520, 16)).astype("u2")
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", array, metadata={"axes": "ZCYX"}, imagej=True)
    denoiser = Denoiser.load(tmp_path / "volumes", OPTIONS)
    job = StackJob(str(tmp_path / "in" / "a.tif"), str(tmp_path / "a.ome.zarr"))
    plan = plan_stack(job, denoiser, HERE)
    slabs = -(-45 // 10)
    assert plan.groups == tuple(range(2 * slabs))
    for group in reversed(plan.groups):
        assert denoise_part(StackPart(job, plan.scalings, group), denoiser, HERE) == 0
    finish_stack(job, plan, HERE)
    whole = [
        np.asarray(volume_model[1](array[None, :, c, ..., None].astype("f4")))[0, ..., 0]
        for c in range(2)
    ]
    with open_stacks(tmp_path / "a.ome.zarr") as [result]:
        places = [result.layout.outer.index(axis) for axis in "ZC"]
        for z, c in np.ndindex(45, 2):
            index = (z, c) if places == [0, 1] else (c, z)
            np.testing.assert_array_equal(result.read(index), whole[c][z].clip(0, 65535))
    assert run(tmp_path, tmp_path / "volumes") == 0
    sources = [*(tmp_path / "in").iterdir()]
    assert contents(tmp_path / "out") == expected(
        tmp_path / "volumes", tmp_path / "expected", sources
    )
    write_picture(tmp_path / "in" / "c.png", Picture(np.zeros((9, 9, 1), np.uint8), ""))
    with pytest.raises(ImageError, match=r"c\.png is a picture.*--axes ZYX"):
        run(tmp_path, tmp_path / "volumes", "other")


def test_only_what_is_missing_is_done_again(sources, tiny_model, tmp_path, monkeypatch, capsys):
    done, fails = [], True

    def denoise(part, *rest):
        if fails and part.group == 2:
            raise OSError("the disk is gone")
        done.append((part.source, part.group))
        return denoise_part(part, *rest)

    monkeypatch.setattr(pipeline, "denoise_part", denoise)
    names = [str(sources / name) for name in ("cells.ome.zarr", "cells.tif")]
    assert run(tmp_path, tiny_model) == 1
    assert "1 denoised, 0 were already done, 2 failed" in capsys.readouterr().out
    assert failures(tmp_path / "out") == dict.fromkeys(names, "the disk is gone")
    assert contents(tmp_path / "out").keys() > {"photo.png"}
    assert not [*(tmp_path / "out").glob("cells*")]
    assert sorted(done) == [(name, group) for name in names for group in (0, 1, 3, 4, 5)]

    done, fails = [], False
    assert run(tmp_path, tiny_model) == 0
    assert sorted(done) == [(name, 2) for name in names]
    wanted = expected(tiny_model, tmp_path / "expected", [*sources.glob("cells*")])
    found = contents(tmp_path / "out")
    assert found.pop("photo.png") and found == wanted  # and no hidden folder is left
    assert not failures(tmp_path / "out")


@pytest.mark.parametrize("name", ["cells.tif", "cells.ome.zarr"])
def test_a_retry_changes_nothing(sources, tiny_model, tmp_path, name):
    denoiser = Denoiser.load(tiny_model, OPTIONS)
    job = StackJob(str(sources / name), str(tmp_path / name))
    plan = plan_stack(job, denoiser, HERE)
    assert plan.groups == tuple(range(6))
    parts = [StackPart(job, plan.scalings, group) for group in plan.groups]
    for part in (parts[3], *parts[:3]):
        denoise_part(part, denoiser, HERE)
    assert plan_stack(job, denoiser, HERE) == StackPlan(plan.scalings, (4, 5))
    (tmp_path / f".{name}.planes" / "done" / "3").unlink()  # written, but not yet marked
    for part in parts[3:]:
        denoise_part(part, denoiser, HERE)
    if name.endswith("zarr"):
        shutil.copytree(sources, tmp_path / name)  # which must not be replaced
        with pytest.raises(ImageError, match="is there"):
            finish_stack(job, plan, HERE)
        shutil.rmtree(tmp_path / name)
        shutil.copytree(sources / name, tmp_path / name)  # a result, which is replaced
    finish_stack(job, plan, HERE)
    finish_stack(job, plan, HERE)
    wanted = expected(tiny_model, tmp_path / "expected", [sources / name])
    (tmp_path / "made").mkdir()
    (tmp_path / name).rename(tmp_path / "made" / name)
    assert contents(tmp_path / "made") == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "in", "made"]


def test_what_other_settings_have_left_is_not_used(sources, tiny_model, tmp_path):
    denoiser = Denoiser.load(tiny_model, OPTIONS)
    job = StackJob(str(sources / "cells.tif"), str(tmp_path / "cells.tif"))
    plan = plan_stack(job, denoiser, HERE)
    denoise_part(StackPart(job, plan.scalings, 0), denoiser, HERE)
    weaker = Denoiser.load(tiny_model, dataclasses.replace(OPTIONS, strength=0.5))
    assert plan_stack(job, weaker, HERE).groups == tuple(range(6))


def test_files_that_are_prepared_by_two_processes_at_once(
    sources, tiny_model, tmp_path, monkeypatch
):
    denoiser = Denoiser.load(tiny_model, OPTIONS)
    job = StackJob(str(sources / "cells.tif"), str(tmp_path / "cells.tif"))
    make = beam_stacks.writer_of

    def meanwhile(target):
        monkeypatch.setattr(beam_stacks, "writer_of", make)
        other = plan_stack(job, denoiser, HERE)
        denoise_part(StackPart(job, other.scalings, 0), denoiser, HERE)
        return make(target)

    monkeypatch.setattr(beam_stacks, "writer_of", meanwhile)
    assert plan_stack(job, denoiser, HERE).groups == tuple(range(1, 6))
    assert [path.name for path in tmp_path.glob(".*")] == [".cells.tif.planes"]


def test_stacks_that_fail_are_named(tiny_model, tmp_path, array, caplog):
    (tmp_path / "in").mkdir()
    values = array[:, 0].astype(np.float32)
    tifffile.imwrite(tmp_path / "in" / "good.tif", values, photometric="minisblack")
    values[3, 5, 6] = np.nan
    tifffile.imwrite(tmp_path / "in" / "nan.tif", values, photometric="minisblack")
    (tmp_path / "in" / "bad.czi").write_bytes(b"text")
    assert run(tmp_path, tiny_model) == 1
    assert [path.name for path in (tmp_path / "out").glob("*.tif")] == ["good.tif"]
    reasons = failures(tmp_path / "out")
    assert reasons.keys() == {str(tmp_path / "in" / name) for name in ("nan.tif", "bad.czi")}
    assert reasons[str(tmp_path / "in" / "nan.tif")].startswith("holds values that are not finite")
    (tmp_path / "in" / "bad.czi").unlink()
    assert run(tmp_path, tiny_model, "filled", nan="fill") == 0
    assert "nan.tif: 1 values that were not finite are filled" in caplog.text
    assert np.isfinite(tifffile.imread(tmp_path / "filled" / "nan.tif")).all()


def test_stacks_at_urls_are_refused(tiny_model, memory, sources, tmp_path, array):
    def refuse(words, input, output=tmp_path / "out"):
        with pytest.raises(ConfigError, match=words):
            denoise_with_beam(str(tiny_model), [input], str(output), options=OPTIONS)

    needs = r"a file system that all workers have mounted: give paths instead of URLs\. Received: "
    refuse(needs + r"memory://in/a\.ome\.zarr", "memory://in/a.ome.zarr")
    refuse(needs + r"memory://in/\*\.zarr", "memory://in/*.zarr")
    memory.put("memory://in/a.zarr/0/zarr.json", b"{}")
    refuse(needs + r"memory://in/a\.zarr/0/zarr\.json", "memory://in/**")
    memory.files.clear()
    memory.put("memory://in/a.czi", b"")
    refuse(needs + r"memory://in/a\.czi", "memory://in/*")
    refuse(needs + "--out memory://out, with the stack .*cells", str(sources), "memory://out")
    assert not (tmp_path / "out").exists()
    # What this file is shows only when it is read.
    memory.put("memory://in/b.tif", (sources / "cells.tif").read_bytes())
    memory.files.pop("memory://in/a.czi")
    where = str(tiny_model), ["memory://in/*"], str(tmp_path / "out")
    assert denoise_with_beam(*where, options=OPTIONS) == 1
    [reason] = failures(tmp_path / "out").values()
    assert "all workers have mounted" in reason


@pytest.mark.slow
def test_a_model_that_was_trained_on_stacks(sources, tmp_path):
    scaling = Scaling("given", (Scale(300.0, 500.0, 400.0, 20.0),)).to_dict()
    recipe = customised("distill", filters=4, depth=1, channels=1)
    recipe = dataclasses.replace(recipe, scaling=scaling)
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    assert run(tmp_path, tmp_path / "model") == 0
    wanted = expected(tmp_path / "model", tmp_path / "expected", [*sources.glob("cells*")])
    found = contents(tmp_path / "out")
    picture = found.pop("photo.png")
    assert found == wanted
    outputs = {sources / "photo.png": tmp_path / "photo.png"}
    assert denoise_files(Denoiser.load(tmp_path / "model", OPTIONS), outputs, tmp_path) == 0
    assert (tmp_path / "photo.png").read_bytes() == picture
    assert read_picture(tmp_path / "photo.png").pixels.std() > 0


@pytest.mark.slow
def test_several_processes_write_one_file(random, tiny_model, tmp_path, run_python):
    """Planes that need not begin where a page of memory does."""
    (tmp_path / "in").mkdir()
    array = random.poisson(400, (40, 2, 300, 333)).astype(np.uint16)
    save_tiff(tmp_path / "in" / "cells.tif", array)
    save_zarr(tmp_path / "in" / "cells.ome.zarr", array)
    workers = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
    where = str(tiny_model), [str(tmp_path / "in" / "*.*")], str(tmp_path / "out")
    assert denoise_with_beam(*where, options=OPTIONS, beam_flags=workers) == 0
    process = run_python(  # whose sums have the same order
        f"""
        from pathlib import Path
        from tests.inference.beam.test_stacks import expected
        expected({str(tiny_model)!r}, Path("expected"), [*Path("in").iterdir()])
        """
    )
    assert process.returncode == 0, process.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "expected") != {}
