"""Whole training iterations: suites, the rows that are compared, the gate before timing."""
