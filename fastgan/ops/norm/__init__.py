"""Normalisation with activation. Read reference.py first; functional.py is what is called."""
