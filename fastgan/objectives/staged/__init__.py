"""Objectives of kinds that are trained in stages."""
