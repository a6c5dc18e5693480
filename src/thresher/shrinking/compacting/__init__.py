"""From zeros to a smaller network that computes the same."""
