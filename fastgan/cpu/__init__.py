"""The CPU engine: which form computes each convolution, and in which precision, by measurement."""
