"""Recipes whose generator starts from a latent vector, beyond the classic ones."""
