"""A folder of pictures and a model for the pipelines, and a remote file system in memory."""

import keras
import pytest

from cbsn.models.folder import save_model
from cbsn.recipes import customised
from tests.inference.beam.memory_file_system import MemoryFileSystem
from tests.inference.beam.samples import save_bad, save_good


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A saved model of fresh weights, always the same."""
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    recipe = customised("cbsn", filters=4, num_modules=1)
    save_model(folder, recipe, recipe.build_network(), {})
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder with good and bad ones; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    save_good(folder)
    save_bad(folder)
    return folder


@pytest.fixture
def memory():
    """The remote file system, empty."""
    MemoryFileSystem.files.clear()
    MemoryFileSystem.log.clear()
    return MemoryFileSystem
