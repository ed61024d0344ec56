"""Normalisation with activation. Read reference.py first; functional.py and handed_on.py are what
is called."""
