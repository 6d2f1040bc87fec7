"""Says what pyproject.toml cannot: the models that ship go into the package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["cbsn", "cbsn.*", "data_prep", "data_prep.*"]),
        "cbsn.pretrained",
        "cbsn.pretrained.photo",
        "cbsn.pretrained.photo_large",
    ],
    # In a clone they lie in a folder of their own.
    package_dir={"cbsn.pretrained": "pretrained"},
)
