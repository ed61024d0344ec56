"""What a run leaves and is loaded from: its folder, its checkpoints, networks and objectives as
JSON."""
