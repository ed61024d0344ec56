"""Steps as CUDA graphs: capture, the backends, and the search for what can't be captured."""
