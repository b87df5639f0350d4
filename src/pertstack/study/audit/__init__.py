"""The audit of a study: its files, its models, its fits."""
