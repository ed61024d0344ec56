"""A finished run put to use: its networks made again, its images."""
