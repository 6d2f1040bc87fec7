import numpy as np
import pytest
import tifffile

from cbsn.data.stack_pairs import StackPairs
from cbsn.errors import ImageError
from cbsn.evaluation.denoised_planes import DenoisedPlanes
from cbsn.evaluation.evaluate import evaluate
from cbsn.evaluation.stack_noise import stack_noise
from cbsn.images.stacks.opening import open_stacks
from cbsn.inference import stack_steps
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import denoise_stack
from cbsn.models.folder import save_model

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")


@pytest.fixture
def denoiser(volume_model):
    return Denoiser(*volume_model, OPTIONS)


@pytest.fixture
def files(random, tmp_path, monkeypatch):
    """Two stacks TZCYX, each of several slabs and parts."""
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    monkeypatch.setattr(stack_steps, "_VOXELS", 40 * 520 * 8)
    (tmp_path / "noisy").mkdir()
    for name in ("a", "b"):
        array = random.integers(0, 8, (2, 20, 2, 520, 8)).astype(np.uint16)
        path = tmp_path / "noisy" / f"{name}.ome.tif"
        tifffile.imwrite(path, array, metadata={"axes": "TZCYX"}, ome=True)
    return tmp_path / "noisy"


@pytest.mark.parametrize("select", [None, "z=3:17,c=1"])
def test_planes_are_those_of_the_command(denoiser, files, select, monkeypatch):
    """In the order of the pairs, each is denoised once."""
    options = StackOptions(select=select)
    pairs = StackPairs(files, None, select=select)
    scalings = dict.fromkeys(pairs.keys, denoiser.scaling)
    calls, scaled = [], denoiser.scaled
    monkeypatch.setattr(
        denoiser, "scaled", lambda *a, **k: calls.append(a) or scaled(*a, **k), raising=False
    )
    planes = DenoisedPlanes(denoiser, pairs.noisy, options, scalings, "float32")
    found = {plane.name: planes(plane) for plane in pairs.planes}
    count = len(calls)
    pairs.close()
    calls.clear()
    for name in ("a", "b"):
        with open_stacks(files / f"{name}.ome.tif") as [stack]:
            whole = denoise_stack(stack, [denoiser], StackOptions(select=select, dtype="float32"))
            order = [stack.layout.axes.index(axis) for axis in "TZCYX"]
            whole = whole.transpose(order)
        for t, z, c in np.ndindex(whole.shape[:3]):
            place = (t, z + 3, 1) if select else (t, z, c)
            plane = found["{} t{} z{} c{}".format(name, *place)]
            np.testing.assert_array_equal(plane[..., 0], whole[t, z, c])
    assert count == len(calls)


@pytest.mark.slow
def test_scores_are_those_of_the_denoised_stack(volume_model, files, tmp_path, random):
    save_model(tmp_path / "model", *volume_model, {})
    denoiser = Denoiser.load(tmp_path / "model", OPTIONS)
    for kind in ("clean", "done"):
        (tmp_path / kind).mkdir()
    for path in sorted(files.iterdir()):
        with open_stacks(path) as [stack]:
            noisy = np.stack([stack.read(index) for index in stack.layout.indices()])
            result = denoise_stack(stack, [denoiser], StackOptions())
            shape, axes = stack.layout.shape, stack.layout.axes
        clean = (noisy + random.integers(0, 2, noisy.shape)).astype(np.uint16).reshape(shape)
        for kind, array in (("clean", clean), ("done", result)):
            tifffile.imwrite(tmp_path / kind / path.name, array, metadata={"axes": axes}, ome=True)
    *_, told, mine = evaluate(
        tmp_path / "clean",
        [str(tmp_path / "model")],
        noisy=files,
        denoised=[str(tmp_path / "done")],
        options=OPTIONS,
    )
    assert "n2v-unet-3d" in mine.method and "denoised" in told.method
    assert mine.psnr == told.psnr and mine.ssim == told.ssim
    assert not mine.seconds  # of one plane, as many are denoised together


def test_noise_is_what_the_model_removes(volume_model, files, tmp_path):
    save_model(tmp_path / "model", *volume_model, {})
    options = StackOptions(select="t=0,c=0", dtype="float32")
    path = files / "a.ome.tif"
    denoiser = Denoiser.load(tmp_path / "model", OPTIONS)
    with open_stacks(path) as [stack]:
        whole = denoise_stack(stack, [denoiser], options)
        tifffile.imwrite(
            tmp_path / "a.ome.tif",
            whole,
            metadata={"axes": stack.layout.axes},
            ome=True,
        )
    (mine,) = stack_noise(
        [path], options, model_path=str(tmp_path / "model"), denoise_options=OPTIONS
    )
    (told,) = stack_noise([path], options, denoised=str(tmp_path / "a.ome.tif"))
    assert mine.to_dict() == told.to_dict()


def test_stacks_without_z_are_refused(volume_model, tmp_path, random):
    save_model(tmp_path / "model", *volume_model, {})
    for kind in ("noisy", "clean"):
        (tmp_path / kind).mkdir()
        array = random.integers(0, 8, (3, 20, 24)).astype(np.uint16)
        tifffile.imwrite(tmp_path / kind / "a.tif", array, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(ImageError, match=r"a\.tif.*--axes ZYX"):
        evaluate(
            tmp_path / "clean", [str(tmp_path / "model")], noisy=tmp_path / "noisy", options=OPTIONS
        )
