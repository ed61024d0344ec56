"""The processes of a run under torchrun."""
