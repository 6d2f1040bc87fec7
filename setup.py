"""Adds the models that ship to the package, which pyproject.toml cannot express."""

import tempfile

from setuptools import find_packages, setup

with tempfile.TemporaryDirectory() as build:
    setup(
        packages=[
            *find_packages(include=["cbsn", "cbsn.*", "data_prep", "data_prep.*"]),
            "cbsn.pretrained",
            "cbsn.pretrained.photo",
            "cbsn.pretrained.photo_large",
        ],
        # In a clone they lie in a separate folder.
        package_dir={"cbsn.pretrained": "pretrained"},
        # Not `build`: modules that an earlier build left there would get into the wheel.
        options={"build": {"build_base": build}},
    )
