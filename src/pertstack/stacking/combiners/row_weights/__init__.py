"""Weights that differ by cell line, parts or sample."""
