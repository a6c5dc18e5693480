"""What leaves the house: files that are really smaller, and measurements of what that brought."""
