"""A smaller network's weights fitted, layer by layer, to what the dense network gives."""
