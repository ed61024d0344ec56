"""Networks for what is no image."""
