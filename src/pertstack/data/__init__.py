"""Samples, genes, controls: reading what people have, validating it, simulating what nobody has."""
