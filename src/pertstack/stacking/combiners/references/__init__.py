"""Combiners that learn little or nothing: single models, means and medians."""
