"""One training step: its phases, reals and fakes in one pass, the noise of coming steps."""
