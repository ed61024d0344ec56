"""A run's generator for other places."""
