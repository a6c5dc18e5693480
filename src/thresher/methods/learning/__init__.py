"""Thresholds that learn: what moves them, the laws they follow, their modules in the network."""
