"""Scores per sample: of models, of combinations, and of the controls that calibrate a metric."""
