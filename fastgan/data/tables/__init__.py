"""Tables: rows of a CSV file as numbers that a network can make, and back."""
