"""Why no mocked test runs a place that runs on a GPU first: by file, then by function and text."""

REASONS: dict[str, dict[str, str]] = {}
