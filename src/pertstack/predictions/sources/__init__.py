"""Where predictions are read from: a store, nested fits, arrays."""
