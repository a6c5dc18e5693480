"""Thresholds on a schedule or a quantile: their pace, their modules in the network, the way back to the start."""
