"""What the tuner measures besides launch configurations: forms on a CPU, engines by direction."""
