"""Sounds: WAV files cut into windows, and vowels that are drawn."""
