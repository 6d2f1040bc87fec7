import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import engines, gpu, recipes, roofline, step
from benchmarks.convolutions import KINDS
from benchmarks.memory import measure_memory
from benchmarks.settings import SUITES, Settings, Size
from cbsn.errors import CbsnError
from cbsn.inference.passes import AUTO_TILE

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = Settings(
    sizes=(Size("smallest", 2, 1),), batches=(1,), patch_size=30, tile=30, repeats=2, memory=False
)


@pytest.fixture
def benchmarks(tmp_path):
    """Runs `python -m benchmarks` in an empty folder."""
    # The command itself is to keep TensorFlow quiet.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    def run(*flags):
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *map(str, flags)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.slow
def test_command(benchmarks, tmp_path):
    flags = ("--quick", "--repeats", 2, "--pictures", "24x30", "--json", "results.json")
    run = benchmarks("inference", "pipeline", *flags)
    assert run.returncode == 0, run.stderr
    assert run.stderr.splitlines() == [
        "inference: tiny (8, 2), 24x30 done",
        "pipeline: 32 of 256x256, crops of 60 done",
        "pipeline: 32 of 256x256, crops of 60 or whole, batch 32 done",
        "pipeline: 8 of 512x512, crops of 60 or whole, batch 32 done",
    ]
    for text in ("CPU: ", "Inference\n", "times as fast", "stock float32, whole", "Data pipeline"):
        assert text in run.stdout

    results = json.loads((tmp_path / "results.json").read_text())
    assert {"CPU", "cores", "avx512_bf16", "amx_bf16", "TensorFlow"} <= set(results["machine"])
    assert results["settings"]["sizes"] == [{"name": "tiny", "filters": 8, "num_modules": 2}]
    assert [*results["suites"]] == ["inference", "pipeline"]
    (case,) = results["suites"]["inference"]
    sides = {side["side"]: side for side in case["sides"]}
    assert {"float32", "bfloat16", "stock float32, whole", "stock bfloat16, whole"} <= set(sides)
    for side in sides.values():
        assert side["base"] == "stock float32, whole"
        assert len(side["samples"]) == len(side["ratios"]) == 2
        assert side["seconds_per_megapixel"] == pytest.approx(side["seconds"] / 720e-6)
    crops, *whole = results["suites"]["pipeline"]
    assert [side["side"] for side in crops["sides"]] == ["batch 4", "batch 32"]
    for case in whole:
        assert [side["side"] for side in case["sides"]] == ["crops", "whole"]
        for side in case["sides"]:
            rows = side["patches_per_second"] / side["batches_per_second"]
            assert rows == pytest.approx(32)
    assert all(side["cpu_us_per_patch"] > 0 for case in (crops, *whole) for side in case["sides"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["stpe"], f"The suites are {', '.join(SUITES)}. Received: stpe"),
        (["--sizes", "huge"], "--sizes are of full, small, tiny. Received: huge"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--batches", "1,"], "--batches takes values with commas between them"),
        (["--pictures", "64"], "--pictures takes HEIGHTxWIDTH. Received: 64"),
        (["--json", "missing/results.json"], "--json needs a folder that exists"),
    ],
)
def test_mistakes_are_one_line(flags, message, capsys):
    from benchmarks.__main__ import main, make_parser

    with pytest.raises(CbsnError, match=message.replace("(", r"\(")):
        main(make_parser().parse_args(flags))
    assert capsys.readouterr().out == ""


def test_the_tile_is_the_denoiser_s():
    assert Settings().tile == AUTO_TILE


def test_step():
    # Tracing takes seconds for each side.
    (case,) = step.run(dataclasses.replace(SMALLEST, sides=("bfloat16", step.BASE)))
    assert case["case"] == "smallest (2, 1), batch 1"
    assert [side["side"] for side in case["sides"]] == ["bfloat16", step.BASE]
    assert all(side["base"] == step.BASE for side in case["sides"])


@pytest.mark.slow
def test_recipes():
    settings = dataclasses.replace(SMALLEST, pictures=((20, 30),))
    sides = ("cbsn", "ssbsn, R3", "n2n-resunet")
    cases = recipes.run(dataclasses.replace(settings, sides=sides))
    training, picture = cases
    assert training["case"] == "step, smallest (2, 1), batch 1"
    assert [side["side"] for side in training["sides"]] == ["cbsn", "n2n-resunet"]
    assert picture["case"] == "smallest (2, 1), 20x30"
    assert [side["side"] for side in picture["sides"]] == [*sides]
    for side in picture["sides"]:
        assert side["base"] == "cbsn"
        assert side["seconds_per_megapixel"] == pytest.approx(side["seconds"] / 600e-6)


@pytest.mark.slow
def test_augmentation_is_a_part_of_a_step():
    settings = dataclasses.replace(
        SMALLEST, pictures=(), augmented_batch=1, augmented_patch_size=16, sides=("photo",)
    )
    training, augmented = recipes.run(settings)
    # The network alone, in patches of 30 pixels as all others have them.
    assert [side["side"] for side in training["sides"]] == ["photo"]
    assert augmented["case"] == "step of photo, batch 1 of 16x16 out of 64x64"
    names = ["photo", "without augmentation", "augmentation alone"]
    assert [side["side"] for side in augmented["sides"]] == names
    assert all(side["base"] == "photo" for side in augmented["sides"])


def test_unknown_sides_are_refused():
    with pytest.raises(CbsnError, match=r"--sides are of float32, bfloat16, .*float64"):
        next(step.run(dataclasses.replace(SMALLEST, sides=("float64",))))


@pytest.mark.slow
def test_roofline(monkeypatch):
    monkeypatch.setattr(roofline, "PRECISIONS", ("bfloat16",))
    training, inference = roofline.run(SMALLEST)
    whole, alone, *kinds = training["sides"]
    assert (whole["side"], alone["side"]) == ("step bfloat16", "convolutions bfloat16")
    assert alone["base"] == whole["side"]
    pairs = zip(alone["samples"], whole["samples"], strict=True)
    expected = [a["seconds"] / b["seconds"] for a, b in pairs]
    assert alone["shares"] == pytest.approx(expected)
    assert alone["share"] == pytest.approx(np.median(expected))
    assert [kind["side"] for kind in kinds] == [f"- {kind}" for kind in KINDS]
    assert sum(kind["gflop"] for kind in kinds) == pytest.approx(alone["gflop"])

    # 30 pixels and a halo of 5; the convolutions without padding lose it bit by bit.
    whole, alone = inference["sides"]
    assert alone["side"] == "convolutions bfloat16"
    assert alone["gflop"] * 1e9 == pytest.approx(_forward_flop(2, 30))


def _forward_flop(filters, side):
    """Of a tile through a network of one module in a branch, without padding."""
    c, pixels = filters, lambda margin: (side + 2 * margin) ** 2
    products = pixels(5) * 3 * c  # head
    for kernel, dilation in ((3, 2), (5, 3)):
        products += pixels(dilation) * (kernel**2 + 2) * c * c  # masked, and two 1×1
        products += pixels(0) * (9 + 1 + 1) * c * c  # the module and the last 1×1
    products += pixels(0) * (2 * c * c + c * 64 + 64 * 64 + 64 * 3)  # tail
    return 2 * products


@pytest.mark.slow
def test_memory_is_of_a_process_of_its_own():
    fields = {"network": step.OURS, "precision": "float32", "filters": 2, "num_modules": 1}
    memory = measure_memory("step", {**fields, "batch_size": 1, "patch_size": 30})
    assert 0 < memory["start_gib"] <= memory["peak_gib"]
    with pytest.raises(CbsnError, match=r"status 2.*patch_size=31"):
        measure_memory("step", {**fields, "batch_size": 1, "patch_size": 31})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_parent_s_memory_is_not_inherited():
    ballast = np.ones(2**27)  # 1 GiB, more than TensorFlow takes
    code = "from benchmarks.memory import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) * 2**30 < ballast.nbytes


@pytest.mark.slow
def test_gpu_suite_counts_steps_and_their_share_of_the_peak():
    settings = dataclasses.replace(
        SMALLEST,
        sizes=(Size("tiny", 2, 1),),  # for which the suite also makes photo's networks small
        augmented_batch=2,
        augmented_patch_size=32,
        pictures=((24, 30),),
        sides=("bfloat16", "bfloat16 XLA"),
    )
    product, *steps, inference = gpu.run(settings)
    peak = max(sample["tflops"] for sample in product["sides"][0]["samples"])
    assert peak > 0
    names = [case["case"].removeprefix("step, ").split(", batch")[0] for case in steps]
    assert names == ["cbsn", "apbsn", "ssbsn", "cbsn, larger", "photo", "photo-large"]
    for case in steps:
        compiled, plain = case["sides"]
        assert (compiled["side"], compiled["base"]) == ("bfloat16 XLA", "bfloat16")
        rows = int(case["case"].split("batch ")[1].split()[0])
        for side in (compiled, plain):
            assert side["steps_per_second"] == pytest.approx(1 / side["seconds"])
            assert side["patches_per_second"] == pytest.approx(rows / side["seconds"])
            if "ssbsn" not in case["case"]:  # whose attention is not counted
                assert side["share"] == pytest.approx(side["tflops"] / peak)
    assert [side["side"] for side in inference["sides"]][:2] == ["photo", "photo_large"]
    for side in inference["sides"]:
        for sample in side["samples"]:
            assert sample["megapixels_per_second"] == pytest.approx(720e-6 / sample["seconds"])


@pytest.mark.slow
def test_engines(monkeypatch):
    settings = dataclasses.replace(SMALLEST, pictures=((16, 24),), repeats=1)
    names = ["tensorflow float32", "tensorflow bfloat16 at its peak"]
    assert {*names, "tensorflow bfloat16", "BM3D"} <= {*engines._sides()}
    names.append("non-local means of scikit-image")
    monkeypatch.setattr(engines, "_sides", lambda: names)
    photo, large = engines.run(settings)
    assert (photo["case"], large["case"]) == ("photo, 16x24", "photo_large, 16x24")
    for side in photo["sides"]:
        assert side["seconds_per_megapixel"] == pytest.approx(side["seconds"] / 384e-6)
    assert photo["sides"][0]["ratio"] == 1
