"""What a pruned network may cost: the budget language, counts, the exact projection, the controller, the report."""
