"""Optimisers, averages and schedules: as they are named, built, fused and driven."""
