"""Instruments that judge images: networks whose features are compared, and how they are compared.
They know no run."""
