"""Data that are more than a folder of images: pairs, two unpaired folders, clips."""
