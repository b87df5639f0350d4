"""Rows that are no part of the plan: samples to predict, a test set that the user has."""
