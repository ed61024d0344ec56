"""Whole training iterations against PyTorch's own best: suites, rows, the gradient gate,
measurement and the tables.

Imports with torch, triton and numpy alone; NVML and matplotlib are used where they are there.
"""
