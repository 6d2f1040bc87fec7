"""Says why the plugin is not tested, where it is not."""

import pytest


def test_there_are_napari_and_qt(is_usable):
    if not is_usable:
        pytest.skip("needs napari, pytest-qt, and a Qt with the libraries of the system")
