"""Recipes whose samples are no images."""
