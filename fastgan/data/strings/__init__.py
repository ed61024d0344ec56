"""Strings: lines of a file as rows of symbols, SMILES that are drawn, and a check of SMILES."""
