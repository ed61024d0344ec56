"""Spectral norm of all the layers of a network together: kernels, and their launches."""
