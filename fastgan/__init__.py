"""fastgan: train GANs fast, on kernels that are proven against PyTorch references."""

__version__ = "0.1.0"
