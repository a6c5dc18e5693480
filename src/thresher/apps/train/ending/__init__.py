"""What a run comes to: the last projection, accuracy, sizes, speed, repairs."""
