"""What trains the kinds whose generator is given an image."""
