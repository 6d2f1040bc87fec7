import dataclasses
import json
import os
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions

from cbsn.errors import ConfigError, DataError, ModelError
from cbsn.images.image_files import read_picture
from cbsn.inference.beam.job import denoise_with_beam, is_local, parse_beam_flags
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files, plan_files
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.recipes import customised
from tests.inference.beam.samples import GOOD, PROFILE, REASONS

OPTIONS = DenoiseOptions(precision="float32", tile="16", rounding="truncate")


@pytest.fixture(scope="module")
def expected(tmp_path_factory, tiny_model, pictures):
    """What infer.py makes of the good pictures, by name."""
    folder = tmp_path_factory.mktemp("expected")
    return infer(tiny_model, [pictures / name for name in GOOD], folder)


def infer(model, sources, folder, white=None, **changed):
    denoiser = Denoiser.load(model, dataclasses.replace(OPTIONS, **changed))
    assert denoise_files(denoiser, plan_files(sources, folder), folder, white=white) == 0
    return contents(folder)


def contents(folder):
    """The pictures in a folder, by name."""
    suffixes = (".png", ".tif", ".jpg")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.suffix in suffixes
    }


def failures(folder):
    """What is said of each picture that failed, by its source."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("failed/failed-*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert all(line.keys() == {"source", "reason"} for line in lines)
    reasons = {line["source"]: line["reason"] for line in lines}
    assert len(reasons) == len(lines)
    return reasons


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny_model, pictures):
    """A folder of copies of the pictures, and of their results; and the exit status."""
    folder = tmp_path_factory.mktemp("ran")
    shutil.copytree(pictures, folder / "in")
    status = denoise(folder, tiny_model)
    return folder, status


def denoise(folder, model, output="out", *, white=None, **changed):
    pattern = str(folder / "in" / "**" / "*.*")
    options = dataclasses.replace(OPTIONS, **changed)
    output = str(folder / output)
    return denoise_with_beam(str(model), [pattern], output, white=white, options=options)


def test_the_good_ones_come_out_as_of_infer_py_and_the_bad_ones_are_named(ran, expected):
    folder, status = ran
    assert status == 1
    assert contents(folder / "out") == expected
    assert {"photo.png", "gray.tif", "rgb.png", "sub/rgb.png"} < expected.keys()
    deep = read_picture(folder / "out" / "deep.png")
    assert (deep.pixels.dtype, deep.icc_profile) == ("uint16", PROFILE)
    reasons = failures(folder / "out")
    assert reasons.keys() == {str(folder / "in" / name) for name in REASONS}
    for name, reason in REASONS.items():
        assert reasons[str(folder / "in" / name)].startswith(reason)


def test_a_second_run_does_what_is_missing(ran, tiny_model, expected, capsys, tmp_path):
    shutil.copytree(ran[0], tmp_path, dirs_exist_ok=True)
    # The record tells where the pictures were.
    record = tmp_path / "out" / "run.json"
    record.write_text(record.read_text().replace(str(ran[0]), str(tmp_path)))
    (tmp_path / "out" / "gray.tif").unlink()
    (tmp_path / "out" / "sub" / "rgb.png").write_bytes(b"older than its source")
    os.utime(tmp_path / "out" / "sub" / "rgb.png", (1, 1))
    (tmp_path / "out" / "deep.png").write_bytes(b"as new as its source")
    (tmp_path / "in" / "empty.png").write_bytes((tmp_path / "in" / "rgb.png").read_bytes())
    for name in ("cut.png", "bomb.png"):
        (tmp_path / "in" / name).unlink()

    assert denoise(tmp_path, tiny_model) == 1
    assert "3 denoised, 4 were already done, 3 failed" in capsys.readouterr().out
    results = contents(tmp_path / "out")
    assert results.pop("deep.png") == b"as new as its source"
    assert results.pop("empty.png") == expected["rgb.png"]
    assert results == {name: expected[name] for name in results}
    assert len(results) == len(expected) - 1
    names = {Path(source).name for source in failures(tmp_path / "out")}
    assert names == {"cmyk.jpg", "nan.tif", "text.png"}

    for name in names:
        (tmp_path / "in" / name).unlink()
    assert denoise(tmp_path, tiny_model) == 0
    assert "0 denoised, 7 were already done, 0 failed" in capsys.readouterr().out
    assert not failures(tmp_path / "out")


def test_results_of_another_kind_are_not_mixed(ran, tiny_model, tmp_path):
    folder, _ = ran
    before = contents(folder / "out"), failures(folder / "out")
    shutil.copytree(tiny_model, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"differently: rounding truncate \(now round\)\. Use"):
        denoise(folder, tmp_path / "model", rounding="round")
    with pytest.raises(ConfigError, match=r"self_ensemble False \(now True\)"):
        denoise(folder, tmp_path / "model", self_ensemble=True)
    told = r"color_strength not given \(now 0\.5\), strength not given \(now"
    with pytest.raises(ConfigError, match=told):
        denoise(folder, tmp_path / "model", strength=0.5)
    with pytest.raises(ConfigError, match=r"differently: input \[.*in/\*\*/.*\(now .*rgb\.png"):
        where = [str(folder / "in" / "rgb.png")], str(folder / "out")
        denoise_with_beam(str(tiny_model), *where, options=OPTIONS)
    assert (contents(folder / "out"), failures(folder / "out")) == before
    (tmp_path / "in").mkdir()
    shutil.copy(folder / "in" / "rgb.png", tmp_path / "in")
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "in" / "rgb.png", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no run\.json, so it is unknown how .*out/rgb\.png"):
        denoise(tmp_path, tiny_model)
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
        denoise(tmp_path, tiny_model)


@pytest.mark.slow
def test_less_strength_is_that_of_infer_py(tiny_model, pictures, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("rgb.png", "gray.tif"):
        shutil.copy(pictures / name, tmp_path / "in")
    options = {"strength": 0.6, "color_strength": 0.9}
    assert denoise(tmp_path, tiny_model, **options) == 0
    expected = infer(tiny_model, [tmp_path / "in"], tmp_path / "expected", **options)
    assert contents(tmp_path / "out") == expected
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["strength"], record["color_strength"]) == (0.6, 0.9)
    with pytest.raises(ConfigError, match=r"color_strength 0\.9 \(now 0\.6\)\. Use"):
        denoise(tmp_path, tiny_model, strength=0.6)


def test_another_model_is_refused(ran, tmp_path):
    recipe = customised("cbsn", filters=4, num_modules=2)
    save_model(tmp_path / "other", recipe, recipe.build_network(), {})
    with pytest.raises(ConfigError, match=r"model .*tiny, SHA-256 \w{12} \(now .*other, SHA-256"):
        denoise(ran[0], tmp_path / "other")


@pytest.mark.slow
def test_urls(memory, tiny_model, pictures, expected, capsys):
    for path in tiny_model.iterdir():
        memory.put(f"memory://models/run/best/{path.name}", path.read_bytes())
    for path in pictures.rglob("*.*"):
        memory.put(f"memory://photos/in/{path.relative_to(pictures)}", path.read_bytes())

    def run():
        memory.log.clear()
        where = "memory://models/run/", ["memory://photos/in/**"], "memory://photos/out/"
        assert denoise_with_beam(*where, options=OPTIONS) == 1
        results = memory.below("memory://photos/out/")
        assert b"memory://models/run/" in results.pop("run.json")
        lines = results.pop("failed/failed-00000-of-00001.jsonl").decode().splitlines()
        assert results == expected  # so there are no temporary files either
        assert memory.log.count(("list", "memory://photos/out/")) == 1
        return {line["source"]: line["reason"] for line in map(json.loads, lines)}

    reasons = run()
    assert "6 denoised, 0 were already done, 6 failed" in capsys.readouterr().out
    for name, reason in REASONS.items():
        assert reasons.pop(f"memory://photos/in/{name}").startswith(reason)
    assert not reasons

    del memory.files["memory://photos/out/photo.png"]
    rgb = memory.files["memory://photos/in/rgb.png"][0]
    memory.put("memory://photos/in/rgb.png", rgb)  # newer than its result, which is replaced
    memory.put("memory://photos/in/text.png", b"is still no picture")
    run()
    assert "2 denoised, 4 were already done, 6 failed" in capsys.readouterr().out


def test_what_cannot_be_written_is_named(tiny_model, pictures, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("rgb.png", "photo.jpg"):
        shutil.copy(pictures / name, tmp_path / "in")
    (tmp_path / "out" / "rgb.png" / "folder").mkdir(parents=True)
    assert denoise(tmp_path, tiny_model) == 1
    assert failures(tmp_path / "out") == {
        str(tmp_path / "in" / "rgb.png"): "cannot be written as PNG (Is a directory)."
    }
    assert (tmp_path / "out" / "photo.png").is_file()


@pytest.mark.slow
def test_the_value_range_is_that_of_infer_py(tiny_model, tmp_path):
    shades = np.random.default_rng(0).integers(500, 4000, (20, 30, 3), np.uint16)
    (tmp_path / "in").mkdir()
    for name, pixels in {"shades.png": shades, "dark.png": shades // 10}.items():
        (tmp_path / "in" / name).write_bytes(imagecodecs.png_encode(pixels))
    found = {}
    for white in (None, 4095):
        expected = infer(tiny_model, [tmp_path / "in"], tmp_path / f"expected{white}", white)
        assert denoise(tmp_path, tiny_model, f"out{white}", white=white) == 0
        found[white] = contents(tmp_path / f"out{white}")
        assert found[white] == expected
    assert found[None]["shades.png"] == found[4095]["shades.png"]
    assert found[None]["dark.png"] != found[4095]["dark.png"]
    with pytest.raises(ConfigError, match=r"differently: white 4095 \(now None\)"):
        denoise(tmp_path, tiny_model, "out4095")


@pytest.mark.slow
def test_names_of_any_bytes(tiny_model, pictures, tmp_path):
    names = [b"a\xff.png", b"\xff/a\xff.png", b"new\nline.png", b"#%41 *[x]?.png", b"-x.png"]
    names = [*map(os.fsdecode, names), "ü.png", "x" * 251 + ".png"]
    bad = [tmp_path / "in" / os.fsdecode(name) for name in (b"bad\xff.png", b"bad\n.png")]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "rgb.png", tmp_path / "in" / name)
    for path in bad:
        path.write_text("no picture")
    assert denoise(tmp_path, tiny_model) == 1
    assert contents(tmp_path / "out").keys() == {*names}
    assert failures(tmp_path / "out").keys() == {*map(str, bad)}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    for path in bad:
        path.unlink()
    assert denoise(tmp_path, tiny_model) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(ConfigError, match="only folders with names in UTF-8"):
        denoise(tmp_path, tiny_model, os.fsdecode(b"out\xff"))


@pytest.mark.slow
def test_no_damage_of_a_file_fails_the_pipeline(tiny_model, pictures, tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("rgb.png", "deep.png", "gray.tif", "photo.jpg"):
        whole = (pictures / name).read_bytes()
        for number in range(10):
            damaged = bytearray(whole)
            for place in random.integers(len(whole), size=random.integers(1, 30)):
                damaged[place] = random.integers(256)
            del damaged[random.integers(1, 2 * len(whole)) :]
            (tmp_path / "in" / f"{number}{name}").write_bytes(damaged)
    assert denoise(tmp_path, tiny_model) == 1
    failed = failures(tmp_path / "out")
    assert len(failed) + len(contents(tmp_path / "out")) == 40
    assert len(failed) > 20
    assert not any("Traceback" in reason or "\n" in reason for reason in failed.values())


def test_results_are_not_denoised(tiny_model, pictures, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    out = str(tmp_path / "out")
    shutil.copy(pictures / "rgb.png", f"{out}/result.png")
    with pytest.raises(DataError, match=r"1 of 1 pictures of --input lie in .*out, where"):
        denoise_with_beam(str(tiny_model), [f"{out}/*"], out, options=OPTIONS)
    shutil.copy(pictures / "gray.tif", tmp_path)
    where = [str(tmp_path / "**" / "*.*")], out
    assert denoise_with_beam(str(tiny_model), *where, options=OPTIONS) == 0
    assert "1 denoised, 0 were already done, 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_jpeg_of_a_quality_that_the_record_names(tiny_model, pictures, tmp_path):
    sizes = []
    for quality in (5, 95):
        out = tmp_path / str(quality)
        where = str(tiny_model), [str(pictures / "photo.jpg")], str(out)
        options = {"format": "same", "jpeg_quality": quality, "options": OPTIONS}
        assert denoise_with_beam(*where, **options) == 0
        sizes.append((out / "photo.jpg").stat().st_size)
    assert sizes[0] < sizes[1]
    with pytest.raises(ConfigError, match=r"jpeg_quality not given \(now 90\)"):
        denoise_with_beam(*where, format="same", jpeg_quality=90, options=OPTIONS)


def test_nothing_is_begun_with_what_cannot_be(tiny_model, pictures, tmp_path, memory):
    output = tmp_path / "out"

    def refuse(error, match, model=tiny_model, input=pictures, output=output, **options):
        with pytest.raises(error, match=match):
            denoise_with_beam(str(model), [str(input)], str(output), options=OPTIONS, **options)

    refuse(DataError, "no file matches", input=pictures / "*.gif")
    refuse(DataError, "no picture at memory://in", input="memory://in")
    refuse(ConfigError, r"gs://in/\* cannot be listed: .*apache-beam\[gcp\]", input="gs://in")
    refuse(ModelError, "No model at /nowhere", model="/nowhere")
    refuse(ModelError, "No model at memory://run. A URL must be", model="memory://run")
    refuse(ConfigError, "format must be one of", format="gif")
    refuse(
        ConfigError,
        "max_megapixels must be above 0.*Received: --max_megapixels 0",
        max_megapixels=0,
    )
    refuse(ConfigError, "--white 0", white=0)
    refuse(ConfigError, "--jpeg_quality 0", jpeg_quality=0)
    refuse(ConfigError, r"reads a folder with .* as a glob", output=tmp_path / "out[1]")
    refuse(ConfigError, "names in UTF-8", output="a\0b")
    refuse(ConfigError, "cannot be written", output=pictures / "text.png")
    memory.put("memory://in/a.png", b"")
    memory.put("memory://in//a.png", b"")
    refuse(ConfigError, "differ only by their slashes", input="memory://in/**")
    assert not output.exists() and not (tmp_path / "out[1]").exists()


def test_what_is_given_counts():
    options = parse_beam_flags(["--direct_num_workers", "3"])
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 1
    assert is_local(options)
    options = parse_beam_flags(["--number_of_worker_harness_threads=2", "--runner=FlinkRunner"])
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 2
    assert not is_local(options)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--foramt", "png"], "Neither this command nor Beam knows --foramt"),
        (["--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--direct_num_workers", "-5"], "at least 0.*Received: --direct_num_workers -5"),
        (["--direct_num_workers", str(10**30)], "at most 1000"),
        (["a.png", "--direct_num_workers", "2"], "Give pictures with --input. Received: 'a.png'"),
    ],
)
def test_unusable_flags_are_refused(flags, match):
    with pytest.raises(ConfigError, match=match):
        parse_beam_flags(flags)


def test_other_runners_may_know_more():
    assert not is_local(parse_beam_flags(["--runner", "PortableRunner", "--foramt", "png"]))
