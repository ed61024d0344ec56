"""Objectives of what is no image."""
