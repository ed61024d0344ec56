"""What is measured and proven: commands of one file each."""
