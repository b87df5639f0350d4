"""Solvers behind the combiners: they see sums, never rows."""
