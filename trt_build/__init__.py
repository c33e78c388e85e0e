"""From a trained model to an engine: prepare the graph, compile it, compare it with the reference, publish it."""
