"""Convolutions, plain and fused with normalisation. Read reference.py first; functional.py and
fused.py are what is called."""
