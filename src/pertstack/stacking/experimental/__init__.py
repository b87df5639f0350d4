"""Combiners that have not paid off so far on real data; asked for by name, never a default. See docs/combiners.md."""
