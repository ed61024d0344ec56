"""Spectral norm. Read reference.py first; functional.py is what is called."""
