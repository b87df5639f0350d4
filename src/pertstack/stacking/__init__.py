"""Combiners: from moments and slices to weights, scored honestly and chosen by rule."""
