"""Cross-fitting: one job per model, fold and scope, run here, in worker processes or on a cluster."""
