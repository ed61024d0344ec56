"""Triton kernels and their launchers: tensors in, tensors out. Imports without a GPU and without
Triton."""
