"""A run as one page that opens from disk, and several runs side by side."""
