"""What `make gpu` runs: each file has rows(toy) and summary(store)."""
