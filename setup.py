"""kernels/ and bench/ are the packages fastgan.kernels and fastgan.bench, in checkouts without
symbolic links too."""

from setuptools import find_packages, setup

beside = ("kernels", "bench")
inner = find_packages(include=[pattern for name in beside for pattern in (name, f"{name}.*")])
setup(
    packages=sorted(
        {*find_packages(include=["fastgan", "fastgan.*"]), *(f"fastgan.{name}" for name in inner)}
    ),
    package_dir={f"fastgan.{name}": name for name in beside},
)
