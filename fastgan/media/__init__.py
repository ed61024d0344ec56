"""What samples are that are no images: how they are drawn, and which files they are written to."""
