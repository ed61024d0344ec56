"""What the first bytes of a file say: the layout of an array, or the name of its format."""
