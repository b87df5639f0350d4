"""Fold plan, blocks, provenance, leak checks, analysis plan, ledger: what is fixed before anything is fitted."""
