"""A stretch of training: what it is given, its running state, and how several follow each other."""
