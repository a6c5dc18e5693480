"""Which group pays for the budget: residual curves, costs, measured latency, and the split over groups."""
