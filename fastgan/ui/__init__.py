"""Runs in the browser, on this machine alone."""
