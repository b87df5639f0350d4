"""Simulated studies: a world with known truth, laid out on plates and written to a file."""
