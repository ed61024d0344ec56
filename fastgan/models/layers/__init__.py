"""Layers that several kinds of networks are built of."""
