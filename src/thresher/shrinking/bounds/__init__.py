"""How far an error can reach: norms of layers, and their way through the network."""
