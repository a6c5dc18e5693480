"""From a model and an example to the engine's own graph, with torch operators where the engine has none."""
