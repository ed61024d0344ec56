"""The kinds whose generator is given an image."""
