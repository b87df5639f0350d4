"""Errors, digests, atomic files, memory budget, progress: no biology, imported by every other folder."""
