"""Tests of `cbsn/napari_plugin/napari.yaml`, and of what the plugin imports."""

import subprocess
import sys
from pathlib import Path

import npe2
import pytest

import cbsn
from cbsn.napari_plugin.denoise_widget import DenoiseWidget

MANIFEST = Path(cbsn.__file__).parent / "napari_plugin" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest():
    return npe2.PluginManifest.from_file(MANIFEST)


def test_it_is_valid_and_its_functions_exist(manifest):
    assert manifest.name == "cbsn"
    manifest.validate_imports()
    commands = {each.id for each in manifest.contributions.commands}
    contributions = manifest.contributions
    used = [*contributions.readers, *contributions.widgets, *contributions.sample_data]
    assert {each.command for each in used} == commands


def test_npe2_finds_the_reader_and_the_widgets(manifest, tmp_path):
    manager = npe2.PluginManager()
    manager.register(manifest)
    for name in ("a.ome.zarr", "a.czi", "a.nd2", "a.lif", "a.tif", "a.ome.tiff"):
        path = tmp_path / name
        path.mkdir() if name.endswith("zarr") else path.touch()
        readers = manager.iter_compatible_readers([str(path)])
        assert [each.command for each in readers] == ["cbsn.get_reader"]
    titles = [each.display_name for each in manifest.contributions.widgets]
    assert titles == ["Denoise", "Train N2V here"]
    manager.activate("cbsn")
    assert manager.commands.get("cbsn.denoise") is DenoiseWidget


def test_tensorflow_stays_out_of_the_process_of_napari():
    """With Mesa's OpenGL in it, both have an LLVM, and the process crashes."""
    modules = [each.stem for each in MANIFEST.parent.glob("*.py") if each.stem != "__init__"]
    lines = [f"import cbsn.napari_plugin.{each}" for each in sorted(modules)]
    lines += ["import sys", "assert not {'tensorflow', 'keras', 'torch', 'jax'} & {*sys.modules}"]
    environment = {"QT_QPA_PLATFORM": "offscreen"}
    code = "\n".join([f"import os; os.environ.update({environment})", *lines])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MANIFEST.parents[2])
