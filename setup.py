"""Packages are computed: a plugin that somebody adds is in the wheel without being listed."""

from setuptools import find_packages, setup

ROOTS = {"robustkit": "robustkit", "robustkit_plugins": "plugins", "robustkit_zoo": "model_zoo"}

setup(
    packages=[
        package
        for root, folder in ROOTS.items()
        for package in (root, *(f"{root}.{name}" for name in find_packages(folder)))
    ],
    package_dir=ROOTS,
)
