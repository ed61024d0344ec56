"""Normalisation with activation: forward, backward, running statistics; the layout is in
forward.py."""
