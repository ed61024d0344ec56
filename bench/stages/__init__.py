"""What `fastgan bench --stages` runs: plan.py says what and when; every other file is a stage, with
rows(toy) and summary(store)."""
