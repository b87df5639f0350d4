"""Weights that differ by gene."""
