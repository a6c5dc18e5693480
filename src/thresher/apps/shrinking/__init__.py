"""What `thresher shrink` and `thresher plan` do: choose, cut, measure, fine-tune, and files that carry their plan."""
