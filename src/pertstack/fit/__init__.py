"""Base models (baselines, linear, torch, external) and their cross-fitting runs."""
