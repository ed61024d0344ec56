"""What a camera, an editor and the web do to a picture, one operation a module, each with a setting
of its own for every sample."""
