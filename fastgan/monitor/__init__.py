"""What a run says of itself: statistics, health, reports, loggers, progress, pictures."""
