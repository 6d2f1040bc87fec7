"""Adds the models that ship to the package, which pyproject.toml cannot express."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["cbsn", "cbsn.*", "data_prep", "data_prep.*"]),
        "cbsn.pretrained",
        "cbsn.pretrained.photo",
        "cbsn.pretrained.photo_large",
    ],
    # In a clone they lie in a separate folder.
    package_dir={"cbsn.pretrained": "pretrained"},
)
