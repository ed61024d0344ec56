import importlib


def test_kernels_live_inside_the_package():
    assert importlib.import_module("fastgan.kernels").__name__ == "fastgan.kernels"
