"""Networks that look through others, which are never trained."""
