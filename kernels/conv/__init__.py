"""The fused convolution: what it is (spec), how it is launched (plan), forward, dgrad and wgrad."""
