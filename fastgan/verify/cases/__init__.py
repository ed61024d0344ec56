"""What `fastgan verify`, `--aot`, `bench` and `tune` know of each family of operators."""
