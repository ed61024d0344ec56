"""What lies between and behind images: walks through latents, directions in them, latents of
photos."""
